terraform {
  required_providers {
    postrider = { source = "postrider/postrider" }
  }
}

provider "postrider" {
  nodes               = ["10.1.1.1:7101", "10.2.1.1:7101"]
  identity            = "cluster/operator"
  cluster_secret_file = "cluster/secrets/cursor-secret"
  frontends           = ["https://api.postrider.example"]
}
