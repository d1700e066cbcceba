resource "postrider_shards" "near" {
  total  = 12
  policy = postrider_policy.near.name
}
