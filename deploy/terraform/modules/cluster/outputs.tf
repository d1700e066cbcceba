output "processes" {
  description = "What runs where: role, configuration file, address of its metrics."
  value       = local.processes
}

output "cloud_init" {
  description = "Of each host: user data for cloud-init. It holds no secret; the bundle does."
  value = {
    for name, host in var.hosts : name => templatefile("${path.module}/templates/cloud-init.yaml.tftpl", {
      name           = name
      user           = var.user
      roles          = sort(host.roles)
      packages       = var.packages
      data_device    = host.data_device
      binary_command = var.binary_command
      binary_sha256  = var.binary_sha256
      bundle_command = replace(var.bundle_command, "HOST", name)
    })
  }
}

output "bundles" {
  description = "Of each host: the file here that it unpacks at /. It holds the keys of its processes."
  value       = { for name, bundle in terraform_data.bundle : name => bundle.output }
}

output "operator" {
  description = "Directory for `postrider ctl --identity`."
  value       = terraform_data.operator.output
}

output "admin_token_file" {
  description = "The file here with the admin token of REST."
  value       = terraform_data.secret["admin-token"].output
}

output "bootstrap_command" {
  description = "To be run once, when the nodes run. Run again it does nothing."
  value       = "${var.postrider} ctl bootstrap --identity ${terraform_data.operator.output} --plan ${terraform_data.file["bootstrap.toml"].output}"
}

output "prometheus_targets" {
  description = "A file for file_sd_configs of Prometheus."
  value       = terraform_data.file["prometheus-targets.json"].output
}
