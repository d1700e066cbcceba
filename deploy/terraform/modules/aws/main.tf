# One region of AWS: a network with its hosts, volumes and buckets, and who may reach what. Nothing of Postrider is decided here: hosts,
# their roles and their user data come from modules/cluster.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

locals {
  # What the world may reach, by role: (port, protocol). Everything else is open to the cluster's own networks alone.
  public = {
    frontend = [[25, "tcp"], [443, "tcp"], [465, "tcp"], [587, "tcp"]]
    dns      = [[53, "tcp"], [53, "udp"]]
  }
  public_rules = merge([
    for name, host in var.hosts : merge([
      for role in host.roles : {
        for rule in lookup(local.public, role, []) : "${role}-${rule[0]}-${rule[1]}" => { role = role, port = rule[0], protocol = rule[1] }
      }
    ]...)
  ]...)
  is_public = { for name, host in var.hosts : name => length(setintersection(host.roles, keys(local.public))) > 0 }
  has_data  = { for name, host in var.hosts : name => host if length(setintersection(host.roles, ["node", "dns"])) > 0 }
}

data "aws_region" "this" {}

resource "aws_vpc" "this" {
  cidr_block           = var.network
  enable_dns_hostnames = true
  tags                 = { Name = "postrider-${var.region}" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "this" {
  vpc_id     = aws_vpc.this.id
  cidr_block = var.network
  tags       = { Name = "postrider-${var.region}" }
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

# The cluster speaks to itself by mutual TLS; the networks are joined as their owner sees fit (peering, a transit gateway).
resource "aws_security_group" "cluster" {
  name        = "postrider-${var.region}"
  description = "The cluster to itself, operators to the nodes, hosts to the world"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "cluster" {
  for_each          = toset(concat([var.network], var.peers, var.operators))
  security_group_id = aws_security_group.cluster.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 7101
  to_port           = 7399
}

resource "aws_vpc_security_group_egress_rule" "world" {
  security_group_id = aws_security_group.cluster.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_security_group" "public" {
  for_each    = local.public
  name        = "postrider-${var.region}-${each.key}"
  description = "The world to ${each.key}"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "public" {
  for_each          = local.public_rules
  security_group_id = aws_security_group.public[each.value.role].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
}

# Name servers look at SMTP and REST of all regions by their private addresses.
resource "aws_vpc_security_group_ingress_rule" "looks" {
  for_each          = { for pair in setproduct(concat([var.network], var.peers), [25, 443]) : "${pair[0]}-${pair[1]}" => pair }
  security_group_id = aws_security_group.cluster.id
  cidr_ipv4         = each.value[0]
  ip_protocol       = "tcp"
  from_port         = each.value[1]
  to_port           = each.value[1]
}

resource "aws_instance" "host" {
  for_each      = var.hosts
  ami           = var.image
  instance_type = contains(each.value.roles, "node") ? var.node_type : var.other_type
  subnet_id     = aws_subnet.this.id
  private_ip    = each.value.address
  # For what it fetches; the security groups let nobody in who is not named there.
  associate_public_ip_address = true
  iam_instance_profile        = aws_iam_instance_profile.host[each.key].name
  vpc_security_group_ids      = concat([aws_security_group.cluster.id], [for role in each.value.roles : aws_security_group.public[role].id if contains(keys(local.public), role)])
  # The bucket's name comes first: what follows fetches the host's bundle from it.
  user_data = "${var.cloud_init[each.key]}\nbootcmd:\n  - echo ${aws_s3_bucket.bundles.bucket} > /etc/postrider-bundles\n"

  metadata_options {
    http_tokens = "required"
  }
  root_block_device {
    encrypted = true
  }
  tags       = { Name = each.key }
  depends_on = [aws_s3_object.bundle]

  lifecycle {
    # A running host is changed by its bundle and postrider-install, not by being replaced.
    ignore_changes = [ami, user_data]
  }
}

resource "aws_eip" "host" {
  for_each = { for name, is_public in local.is_public : name => var.hosts[name] if is_public }
  domain   = "vpc"
}

resource "aws_eip_association" "host" {
  for_each      = aws_eip.host
  instance_id   = aws_instance.host[each.key].id
  allocation_id = each.value.id
}

# State outlives its host; a node whose volume is lost never comes back under its number.
resource "aws_ebs_volume" "data" {
  for_each          = local.has_data
  availability_zone = aws_subnet.this.availability_zone
  type              = "gp3"
  size              = contains(each.value.roles, "node") ? var.node_gib : 8
  encrypted         = true
  tags              = { Name = "${each.key}-data" }
}

resource "aws_volume_attachment" "data" {
  for_each    = aws_ebs_volume.data
  device_name = "/dev/sdf"
  volume_id   = each.value.id
  instance_id = aws_instance.host[each.key].id
}

# Attachments.
resource "aws_s3_bucket" "blobs" {
  bucket_prefix = "postrider-${var.region}-"
}

resource "aws_s3_bucket_public_access_block" "blobs" {
  bucket                  = aws_s3_bucket.blobs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_iam_user" "blobs" {
  name = "postrider-${var.region}"
}

resource "aws_iam_user_policy" "blobs" {
  user = aws_iam_user.blobs.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], Resource = "${aws_s3_bucket.blobs.arn}/*" },
      { Effect = "Allow", Action = ["s3:ListBucket"], Resource = aws_s3_bucket.blobs.arn },
    ]
  })
}

# What each host unpacks, keys included: it may read its own and no other.
resource "aws_s3_bucket" "bundles" {
  bucket_prefix = "postrider-${var.region}-bundles-"
}

resource "aws_s3_bucket_public_access_block" "bundles" {
  bucket                  = aws_s3_bucket.bundles.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_object" "bundle" {
  for_each               = var.hosts
  bucket                 = aws_s3_bucket.bundles.id
  key                    = "${each.key}.tar.gz"
  source                 = var.bundles[each.key]
  server_side_encryption = "AES256"
}

resource "aws_iam_role" "host" {
  for_each    = var.hosts
  name_prefix = "postrider-${each.key}-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "bundle" {
  for_each = var.hosts
  role     = aws_iam_role.host[each.key].id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "s3:GetObject", Resource = "${aws_s3_bucket.bundles.arn}/${each.key}.tar.gz" }]
  })
}

resource "aws_iam_instance_profile" "host" {
  for_each    = var.hosts
  name_prefix = "postrider-${each.key}-"
  role        = aws_iam_role.host[each.key].name
}
