# Three regions on this machine, each a host with everything: what `modules/cluster` renders, to be started by `./run`.

terraform {
  required_version = ">= 1.11"
}

variable "directory" {
  description = "Where everything is rendered, data included."
  type        = string
  default     = "cluster"
}

variable "postrider" {
  description = "The binary."
  type        = string
  default     = "postrider"
}

variable "loopback_block" {
  description = "Second number of the addresses 127.N.1.1, 127.N.2.1 and 127.N.3.1."
  type        = number
  default     = 1
}

locals {
  regions = { seoul = 1, frankfurt = 2, virginia = 3 }
}

module "cluster" {
  source = "../../modules/cluster"

  directory = var.directory
  postrider = var.postrider
  rooted    = true

  zones = {
    world = { domains = ["postrider.example"], shards = 3 }
  }
  regions = {
    for name, number in local.regions : name => {
      zone      = "world"
      addresses = ["127.${var.loopback_block}.${number}.1"]
      mail_host = "mx-${name}.postrider.example"
      ns_host   = "ns-${name}.postrider.example"
    }
  }
  hosts = {
    for name, number in local.regions : "${name}-1" => {
      region  = name
      address = "127.${var.loopback_block}.${number}.1"
      roles   = ["node", "frontend", "worker", "dns", "store"]
      node    = number
    }
  }

  # Above those that only root may have.
  ports        = { rest = 8080, smtp = 2525, submission = 2587, submissions = 2465, dns = 5300 }
  rest_tls     = false
  open_sign_up = true
  # Nothing goes to the world from here.
  outgoing = { enabled = false }
}

output "commands" {
  description = "One process a line: its role, its configuration."
  value       = join("\n", [for process in module.cluster.processes : "${process.role} ${process.config}"])
}

output "bootstrap_command" {
  value = module.cluster.bootstrap_command
}

output "operator" {
  value = module.cluster.operator
}

output "prometheus_targets" {
  value = module.cluster.prometheus_targets
}

output "rest" {
  value = { for name, number in local.regions : name => "http://127.${var.loopback_block}.${number}.1:8080" }
}

output "smtp" {
  value = { for name, number in local.regions : name => "127.${var.loopback_block}.${number}.1:2525" }
}

output "node" {
  description = "For `postrider ctl --cluster`."
  value       = "127.${var.loopback_block}.1.1:7101"
}
