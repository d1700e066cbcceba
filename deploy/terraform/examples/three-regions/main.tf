# A cluster over three regions of AWS: two storage nodes, two frontends and a name server in each. `modules/aws` makes the hosts, volumes,
# buckets and security groups; `modules/cluster` says what runs on them.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

# Provider blocks take no for_each: one for each region.
provider "aws" {
  alias  = "seoul"
  region = "ap-northeast-2"
}

provider "aws" {
  alias  = "frankfurt"
  region = "eu-central-1"
}

provider "aws" {
  alias  = "virginia"
  region = "us-east-1"
}

variable "domain" {
  description = "The mail domain."
  type        = string
}

variable "operators" {
  description = "Networks from which operators reach the nodes."
  type        = list(string)
}

variable "images" {
  description = "A Debian 12 image (amd64) of each region."
  type        = object({ seoul = string, frankfurt = string, virginia = string })
}

variable "binary" {
  description = "Where hosts get the binary from, and what it hashes to (SHA-256)."
  type        = object({ url = string, sha256 = string })
}

variable "access_keys" {
  description = "The access key of each region's object store: see README.md."
  type        = object({ seoul = string, frankfurt = string, virginia = string })
}

locals {
  # Private networks that are told apart, for they are joined.
  networks = { seoul = "10.1.0.0/16", frankfurt = "10.2.0.0/16", virginia = "10.3.0.0/16" }

  # Node numbers are given once and never again: a host that comes in place of another gets a new one.
  numbers = { seoul = [1, 2], frankfurt = [3, 4], virginia = [5, 6] }

  hosts = {
    for region, network in local.networks : region => merge(
      {
        for index, number in local.numbers[region] : "${region}-node-${number}" => {
          address = cidrhost(network, 16 + index)
          roles   = ["node"]
          node    = number
        }
      },
      {
        for index in range(2) : "${region}-front-${index + 1}" => {
          address = cidrhost(network, 32 + index)
          roles   = ["frontend"]
        }
      },
      {
        "${region}-dns-1" = { address = cidrhost(network, 48), roles = ["dns"] }
      },
    )
  }
}

module "seoul" {
  source    = "../../modules/aws"
  providers = { aws = aws.seoul }

  region     = "seoul"
  network    = local.networks.seoul
  peers      = [local.networks.frankfurt, local.networks.virginia]
  operators  = var.operators
  image      = var.images.seoul
  hosts      = local.hosts.seoul
  cloud_init = module.cluster.cloud_init
  bundles    = module.cluster.bundles
}

module "frankfurt" {
  source    = "../../modules/aws"
  providers = { aws = aws.frankfurt }

  region     = "frankfurt"
  network    = local.networks.frankfurt
  peers      = [local.networks.seoul, local.networks.virginia]
  operators  = var.operators
  image      = var.images.frankfurt
  hosts      = local.hosts.frankfurt
  cloud_init = module.cluster.cloud_init
  bundles    = module.cluster.bundles
}

module "virginia" {
  source    = "../../modules/aws"
  providers = { aws = aws.virginia }

  region     = "virginia"
  network    = local.networks.virginia
  peers      = [local.networks.seoul, local.networks.frankfurt]
  operators  = var.operators
  image      = var.images.virginia
  hosts      = local.hosts.virginia
  cloud_init = module.cluster.cloud_init
  bundles    = module.cluster.bundles
}

locals {
  clouds = { seoul = module.seoul, frankfurt = module.frankfurt, virginia = module.virginia }
}

module "cluster" {
  source = "../../modules/cluster"

  directory = "cluster"
  zones     = { world = { domains = [var.domain], shards = 64 } }
  regions = {
    for name, cloud in local.clouds : name => {
      zone         = "world"
      addresses    = cloud.frontend_addresses
      mail_host    = "mx-${name}.${var.domain}"
      ns_host      = "ns-${name}.${var.domain}"
      ns_addresses = cloud.dns_addresses
      store = {
        endpoint        = cloud.store.endpoint
        bucket          = cloud.store.bucket
        access_key      = var.access_keys[name]
        secret_key_file = "secrets/store-${name}" # see README.md
      }
    }
  }
  hosts = merge([
    for region, hosts in local.hosts : {
      for name, host in hosts : name => merge(host, {
        region      = region
        data_device = contains(host.roles, "node") || contains(host.roles, "dns") ? "/dev/nvme1n1" : null
      })
    }
  ]...)

  binary_command = "curl -sSf ${var.binary.url}"
  binary_sha256  = var.binary.sha256
  bundle_command = "aws s3 cp --only-show-errors s3://$(cat /etc/postrider-bundles)/HOST.tar.gz -"
  packages       = ["curl", "awscli"]
}

output "bootstrap_command" {
  description = "To be run once from a network of the operators."
  value       = module.cluster.bootstrap_command
}
