data "postrider_shards" "near" {
  policy = "near"
}

output "homes" {
  value = { for shard in data.postrider_shards.near.shards : shard.id => shard.home_region }
}
