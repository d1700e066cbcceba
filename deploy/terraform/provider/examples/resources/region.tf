resource "postrider_region" "seoul" {
  name   = "seoul"
  url    = "https://seoul.postrider.example"
  weight = 50
}
