# What the cluster of this example is kept to, by the provider. `./run` has to run: see README.md beside the example.

terraform {
  required_version = ">= 1.11"

  required_providers {
    postrider = { source = "postrider/postrider" }
  }
}

data "terraform_remote_state" "local" {
  backend = "local"
  config  = { path = "../terraform.tfstate" }
}

locals {
  cluster = data.terraform_remote_state.local.outputs
}

provider "postrider" {
  nodes               = [local.cluster.node]
  frontends           = values(local.cluster.rest)
  identity            = local.cluster.operator
  cluster_secret_file = "../cluster/secrets/cursor-secret"
}

resource "postrider_policy" "near" {
  name = "near"
  home = "seoul"
}

# A domain that names the policy wants shards that are held to it before its first account: `postrider_shards`.
resource "postrider_domain" "example" {
  name            = "example.test"
  dkim_rotation   = "2026-12"
  dkim_algorithms = ["ed25519"]
}

resource "postrider_account" "postmaster" {
  address    = "postmaster@example.test"
  password   = "correct horse battery"
  depends_on = [postrider_domain.example]
}

resource "postrider_region" "seoul" {
  name              = "seoul"
  weight            = 50
  forget_on_destroy = true
}

data "postrider_nodes" "all" {}

output "nodes" {
  value = { for node in data.postrider_nodes.all.nodes : node.id => node.state }
}

output "dkim_records" {
  value = { for record in postrider_domain.example.dkim_records : record.name => record.value }
}
