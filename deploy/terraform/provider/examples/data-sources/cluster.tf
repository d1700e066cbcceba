data "postrider_cluster" "this" {}

output "regions" {
  value = data.postrider_cluster.this.regions
}
