# Where everything is, worked out once; what is written is in files.tf, certificates.tf and secrets.tf.

locals {
  directory = abspath(var.directory)

  # Of each host: where its files are rendered here, and what they call their own root.
  rendered = { for name, _ in var.hosts : name => "${local.directory}/hosts/${name}" }
  root     = { for name, _ in var.hosts : name => var.rooted ? local.rendered[name] : "" }
  etc      = { for name, root in local.root : name => "${root}/etc/postrider" }
  lib      = { for name, root in local.root : name => "${root}/var/lib/postrider" }

  processes = merge([
    for name, host in var.hosts : {
      for role in host.roles : "${name}/${role}" => {
        host   = name
        role   = role
        region = host.region
        # Its name in certificates and in the audit log.
        name    = role == "node" ? "node-${host.node}" : "${role}-${name}"
        config  = "${local.etc[name]}/${role}.toml"
        metrics = "${host.address}:${local.metrics_ports[role]}"
      }
    }
  ]...)

  metrics_ports = {
    node     = var.ports.node_metrics
    frontend = var.ports.frontend_metrics
    worker   = var.ports.worker_metrics
    dns      = var.ports.dns_metrics
    store    = var.ports.store_metrics
  }

  nodes = { for name, host in var.hosts : name => host if host.node != null }

  # All nodes for a host, those of its own region first.
  node_addresses = {
    for name, host in var.hosts : name => concat(
      [for other in local.nodes : "${other.address}:${var.ports.grpc}" if other.region == host.region],
      [for other in local.nodes : "${other.address}:${var.ports.grpc}" if other.region != host.region],
    )
  }

  stores = {
    for name, region in var.regions : name => region.store != null ? {
      endpoint    = region.store.endpoint
      bucket      = region.store.bucket
      access_key  = region.store.access_key
      secret      = "store-secret-${name}"
      allow_plain = region.store.allow_plain
      # host:port, as placement wants it.
      address = format("%s:%s",
        regex("^https?://([^/:]+)", region.store.endpoint)[0],
        try(regex("^https?://[^/:]+:([0-9]+)", region.store.endpoint)[0], startswith(region.store.endpoint, "https:") ? "443" : "80"),
      )
      } : {
      endpoint    = "http://${local.store_hosts[name]}:${var.ports.store}"
      bucket      = "postrider"
      access_key  = "postrider"
      secret      = "store-secret"
      allow_plain = true
      address     = "${local.store_hosts[name]}:${var.ports.store}"
    }
  }
  store_hosts = { for host in var.hosts : host.region => host.address if contains(host.roles, "store") }

  # Regions whose certificates the cluster's own authority signs.
  own_certificates = { for name, region in var.regions : name => region if region.certificate == null }

  frontends = {
    for name, _ in var.regions : name => [for host in var.hosts : host if host.region == name && contains(host.roles, "frontend")]
  }
}
