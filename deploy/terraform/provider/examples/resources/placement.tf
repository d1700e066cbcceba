resource "postrider_placement" "cluster" {
  homes = {
    "1000" = "seoul"
  }

  # Evened out once nodes and shards are as they should be.
  depends_on = [postrider_node.new, postrider_shards.near]
}
