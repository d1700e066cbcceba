# Secrets are made once and kept in the directory, whatever becomes of these resources: `terraform destroy` leaves them, because what was
# sealed under them (keys that mail is signed with) opens with nothing else. None of them is in the state.

locals {
  made_secrets = toset(["cursor-secret", "admin-token", "store-secret", "dns-cookie-secret"])
  # From elsewhere: the object stores' own.
  given_secrets = { for name, region in var.regions : "store-secret-${name}" => region.store.secret_key_file if region.store != null }

  wanted_secrets = {
    node     = distinct([for store in local.stores : store.secret])
    frontend = concat(["cursor-secret", "admin-token"], distinct([for store in local.stores : store.secret]))
    worker   = concat(["cursor-secret"], distinct([for store in local.stores : store.secret]))
    dns      = ["dns-cookie-secret", "dnssec.key"]
    store    = ["store-secret"]
  }
  host_secrets = merge([
    for name, host in var.hosts : {
      for secret in distinct(flatten([for role in host.roles : local.wanted_secrets[role]])) :
      "${name}/${secret}" => { host = name, secret = secret }
    }
  ]...)
}

resource "terraform_data" "secret" {
  for_each = local.made_secrets
  input    = "${local.directory}/secrets/${each.key}"

  provisioner "local-exec" {
    command     = "${path.module}/scripts/make-secret"
    environment = { FILE = self.input }
  }
}

resource "terraform_data" "given_secret" {
  for_each         = local.given_secrets
  input            = "${local.directory}/secrets/${each.key}"
  triggers_replace = [abspath(each.value)]

  provisioner "local-exec" {
    command     = "install -D -m 0600 \"$FROM\" \"$FILE\""
    environment = { FROM = abspath(each.value), FILE = self.input }
  }
}

resource "terraform_data" "dnssec_key" {
  input = "${local.directory}/secrets/dnssec.key"

  provisioner "local-exec" {
    command     = "\"$POSTRIDER\" ctl cert dnssec-key \"$FILE\""
    environment = { POSTRIDER = var.postrider, FILE = self.input }
  }
}

# Each host has those that its processes read.
resource "terraform_data" "host_secret" {
  for_each = local.host_secrets
  input    = "${local.rendered[each.value.host]}/etc/postrider/secrets/${each.value.secret}"
  triggers_replace = [
    "${local.directory}/secrets/${each.value.secret}",
    try(terraform_data.given_secret[each.value.secret].id, ""),
  ]

  provisioner "local-exec" {
    command     = "install -D -m 0600 \"$FROM\" \"$FILE\""
    environment = { FROM = "${local.directory}/secrets/${each.value.secret}", FILE = self.input }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "rm -f \"$FILE\""
    environment = { FILE = self.input }
  }

  depends_on = [terraform_data.secret, terraform_data.given_secret, terraform_data.dnssec_key]
}
