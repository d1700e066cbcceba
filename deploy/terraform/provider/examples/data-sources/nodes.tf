data "postrider_nodes" "seoul" {
  region = "seoul"
}

output "silent" {
  value = [for node in data.postrider_nodes.seoul.nodes : node.id if node.state == "silent"]
}
