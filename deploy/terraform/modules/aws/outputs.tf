output "frontend_addresses" {
  description = "Public addresses of the frontends."
  value       = [for name, address in aws_eip.host : address.public_ip if contains(var.hosts[name].roles, "frontend")]
}

output "dns_addresses" {
  description = "Public addresses of the name servers."
  value       = [for name, address in aws_eip.host : address.public_ip if contains(var.hosts[name].roles, "dns")]
}

output "store" {
  description = "The object store."
  value = {
    endpoint = "https://s3.${data.aws_region.this.region}.amazonaws.com"
    bucket   = aws_s3_bucket.blobs.bucket
  }
}

output "store_user" {
  description = "Who may read and write there. Its access key is made by hand, so that no secret is in the state (see examples/three-regions)."
  value       = aws_iam_user.blobs.name
}
