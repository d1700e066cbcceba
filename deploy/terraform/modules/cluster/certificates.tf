# The cluster's own authority, an operator, one certificate for each process, and what clients see where nobody else signs it. Keys are
# made where they are written and are not in the state. The authority stays when everything else is destroyed.

resource "terraform_data" "authority" {
  input = "${local.directory}/authority"

  provisioner "local-exec" {
    command     = "\"$POSTRIDER\" ctl cert authority \"$DIR\""
    environment = { POSTRIDER = var.postrider, DIR = self.input }
  }
}

# For `postrider ctl --identity`.
resource "terraform_data" "operator" {
  input            = "${local.directory}/operator"
  triggers_replace = [terraform_data.authority.id]

  provisioner "local-exec" {
    command     = "\"$POSTRIDER\" ctl cert operator terraform --authority \"$AUTHORITY\" --out \"$OUT\""
    environment = { POSTRIDER = var.postrider, AUTHORITY = "${local.directory}/authority", OUT = self.input }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$OUT/cert.pem\" \"$OUT/key.pem\" \"$OUT/ca.pem\""
    environment = { OUT = self.input }
  }
}

resource "terraform_data" "process_certificate" {
  for_each         = { for key, process in local.processes : key => process if process.role != "store" }
  input            = "${local.rendered[each.value.host]}/etc/postrider/tls/${each.value.role}"
  triggers_replace = [terraform_data.authority.id, each.value.name]

  provisioner "local-exec" {
    command = "\"$POSTRIDER\" ctl cert process \"$ROLE\" \"$NAME\" --authority \"$AUTHORITY\" --out \"$OUT\""
    environment = {
      POSTRIDER = var.postrider
      ROLE      = each.value.role
      NAME      = each.value.name
      AUTHORITY = "${local.directory}/authority"
      OUT       = self.input
    }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -rf \"$OUT\""
    environment = { OUT = self.input }
  }
}

# One of each region, which its frontends share: TLSA records tell of its key.
resource "terraform_data" "mail_certificate" {
  for_each = local.own_certificates
  input    = "${local.directory}/mail/${each.key}"
  triggers_replace = [
    terraform_data.authority.id,
    local.mail_names[each.key],
    each.value.addresses,
  ]

  provisioner "local-exec" {
    command = "\"$POSTRIDER\" ctl cert host mail $HOSTS --authority \"$AUTHORITY\" --out \"$OUT\" --address \"$ADDRESSES\""
    environment = {
      POSTRIDER = var.postrider
      HOSTS     = join(" ", local.mail_names[each.key])
      AUTHORITY = "${local.directory}/authority"
      ADDRESSES = join(",", each.value.addresses)
      OUT       = self.input
    }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -rf \"$OUT\""
    environment = { OUT = self.input }
  }
}

locals {
  # The region's own name, and what every domain of its zone calls its nearest region.
  mail_names = {
    for name, region in var.regions : name => concat([region.mail_host], flatten([
      for domain in var.zones[region.zone].domains : [for host in ["mail", "mx", "api", "mta-sts", "autoconfig", "autodiscover"] : "${host}.${domain}"]
    ]))
  }

  # Frontends have certificate and key of their region; name servers the certificates of all regions.
  mail_copies = merge(concat(
    [
      for name, host in var.hosts : {
        for file in ["mail.pem", "mail.key"] : "${name}/${file}" => {
          from = "${local.directory}/mail/${host.region}/${file}"
          to   = "${local.rendered[name]}/etc/postrider/mail/${file}"
          of   = host.region
          mode = endswith(file, ".key") ? "0600" : "0644"
        }
      } if contains(host.roles, "frontend") && contains(keys(local.own_certificates), host.region)
    ],
    [
      for name, host in var.hosts : {
        for region, _ in local.own_certificates : "${name}/regions/${region}.pem" => {
          from = "${local.directory}/mail/${region}/mail.pem"
          to   = "${local.rendered[name]}/etc/postrider/mail/regions/${region}.pem"
          of   = region
          mode = "0644"
        }
      } if contains(host.roles, "dns")
    ],
  )...)
}

resource "terraform_data" "mail_copy" {
  for_each         = local.mail_copies
  input            = each.value.to
  triggers_replace = [terraform_data.mail_certificate[each.value.of].id]

  provisioner "local-exec" {
    command     = "install -D -m \"$MODE\" \"$FROM\" \"$FILE\""
    environment = { FROM = each.value.from, FILE = self.input, MODE = each.value.mode }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$FILE\""
    environment = { FILE = self.input }
  }
}
