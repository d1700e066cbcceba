resource "postrider_policy" "near" {
  name     = "near"
  replicas = 3
  regions  = ["frankfurt", "seoul", "virginia"]
  home     = "frankfurt"
}
