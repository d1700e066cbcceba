resource "postrider_domain" "example" {
  name          = "postrider.example"
  policy        = postrider_policy.near.name
  dkim_rotation = "2026-12"
}
