data "postrider_domain_records" "example" {
  domain     = postrider_domain.example.name
  dmarc      = "reject"
  depends_on = [postrider_domain.example]

  regions = [{
    name      = "seoul"
    addresses = ["192.0.2.1"]
    mail_host = "mx-seoul.postrider.example"
    ns_host   = "ns-seoul.postrider.example"
  }]
}

output "zone_file" {
  value = data.postrider_domain_records.example.zone_file
}
