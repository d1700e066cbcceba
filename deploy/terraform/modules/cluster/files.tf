# What holds no secret: configurations, units, the plan of the cluster, what Prometheus scrapes. Each file is a resource, so a plan shows
# which of them change.

locals {
  stores_of = {
    for name, _ in var.hosts : name => [
      for region, store in local.stores : merge(store, {
        region      = region
        secret_file = "${local.etc[name]}/secrets/${store.secret}"
      })
    ]
  }
  tls_of = {
    for key, process in local.processes : key => {
      ca   = "${local.etc[process.host]}/tls/${process.role}/ca.pem"
      cert = "${local.etc[process.host]}/tls/${process.role}/${process.name}.pem"
      key  = "${local.etc[process.host]}/tls/${process.role}/${process.name}.key"
    }
  }
  certificate_of = {
    for name, host in var.hosts : name => var.regions[host.region].certificate != null ? var.regions[host.region].certificate : {
      cert = "${local.etc[name]}/mail/mail.pem"
      key  = "${local.etc[name]}/mail/mail.key"
    }
  }

  configurations = {
    for key, process in local.processes : key => templatefile("${path.module}/templates/${process.role}.toml.tftpl", {
      host        = var.hosts[process.host]
      host_name   = process.host
      region      = var.regions[process.region]
      region_name = process.region
      regions     = var.regions
      nodes       = local.node_addresses[process.host]
      seeds       = [for address in local.node_addresses[process.host] : address if address != "${var.hosts[process.host].address}:${var.ports.grpc}"]
      frontends   = local.frontends
      ports       = var.ports
      metrics     = process.metrics
      etc         = local.etc[process.host]
      lib         = local.lib[process.host]
      tls         = local.tls_of[key]
      certificate = local.certificate_of[process.host]
      stores      = local.stores_of[process.host]
      rest_tls    = var.rest_tls
      sign_up     = var.open_sign_up
      # A worker of its own leaves the frontends of its region to their clients.
      has_worker = length([for host in var.hosts : host if host.region == process.region && contains(host.roles, "worker")]) > 0
      outgoing   = var.outgoing
      policy     = var.dns_policy
      own        = keys(local.own_certificates)
    })
  }

  units = {
    for key, process in local.processes : key => templatefile("${path.module}/templates/unit.service.tftpl", {
      role   = process.role
      user   = var.user
      config = process.config
      root   = local.root[process.host]
      # What is below 1024 needs no more than this.
      binds_low = anytrue([
        for port in lookup({
          frontend = [var.ports.rest, var.ports.smtp, var.ports.submission, var.ports.submissions]
          dns      = [var.ports.dns]
        }, process.role, []) : port < 1024
      ])
    })
  }

  bootstrap = templatefile("${path.module}/templates/bootstrap.toml.tftpl", {
    zones   = var.zones
    regions = var.regions
    stores  = local.stores
    nodes   = local.nodes
    grpc    = var.ports.grpc
  })

  # For file_sd_configs of Prometheus.
  targets = jsonencode([
    for key, process in local.processes : {
      targets = [process.metrics]
      labels  = { role = process.role, region = process.region, host = process.host }
    }
  ])

  files = merge(
    { for key, process in local.processes : "hosts/${process.host}/etc/postrider/${process.role}.toml" => local.configurations[key] },
    { for key, process in local.processes : "hosts/${process.host}/etc/systemd/system/postrider-${process.role}.service" => local.units[key] },
    { "bootstrap.toml" = local.bootstrap, "prometheus-targets.json" = local.targets },
  )
}

resource "terraform_data" "file" {
  for_each         = local.files
  input            = "${local.directory}/${each.key}"
  triggers_replace = [each.value]

  provisioner "local-exec" {
    command     = "${path.module}/scripts/write-file"
    environment = { FILE = self.input, CONTENT = each.value }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$FILE\""
    environment = { FILE = self.input }
  }
}

# What a host unpacks at /: everything of it, keys included.
resource "terraform_data" "bundle" {
  for_each = var.hosts
  input    = "${local.directory}/bundles/${each.key}.tar.gz"
  triggers_replace = [
    sha256(jsonencode([for key, content in local.files : content if startswith(key, "hosts/${each.key}/")])),
    [for key, secret in local.host_secrets : terraform_data.host_secret[key].id if secret.host == each.key],
    [for key, process in local.processes : terraform_data.process_certificate[key].id if process.host == each.key && process.role != "store"],
    [for key, copy in local.mail_copies : terraform_data.mail_copy[key].id if startswith(key, "${each.key}/")],
  ]

  provisioner "local-exec" {
    command     = "${path.module}/scripts/make-bundle"
    environment = { FILE = self.input, ROOT = "${local.directory}/hosts/${each.key}" }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$FILE\""
    environment = { FILE = self.input }
  }

  depends_on = [terraform_data.file]
}

# A file that somebody removed or changed is not seen by a plan: this says so, with what to do.
check "files" {
  assert {
    condition = alltrue([
      for key, file in terraform_data.file : fileexists(file.output) ? file(file.output) == local.files[key] : false
    ])
    error_message = "Rendered files are missing or were changed by hand: `terraform apply -replace` of module.….terraform_data.file[\"…\"] writes one anew."
  }
}
