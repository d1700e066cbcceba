# What Terraform itself has, and no provider: files are written and certificates are signed by commands on the machine that runs it.
terraform {
  required_version = ">= 1.11"
}
