variable "reports_password" {
  type      = string
  sensitive = true
}

resource "postrider_account" "reports" {
  address  = "reports@postrider.example"
  password = var.reports_password
  name     = "Reports"
  category = "transactional"

  lifecycle {
    prevent_destroy = true
  }
}
