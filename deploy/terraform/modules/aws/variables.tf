variable "region" {
  description = "Its name in the cluster."
  type        = string
}

variable "network" {
  description = "The private network of the region's hosts (CIDR)."
  type        = string
}

variable "peers" {
  description = "Those of the other regions."
  type        = list(string)
}

variable "operators" {
  description = "Networks from which operators reach the nodes, and Prometheus the counters."
  type        = list(string)
}

variable "image" {
  description = "A Debian 12 image."
  type        = string
}

variable "hosts" {
  description = "Of modules/cluster, those of this region: private address and roles."
  type = map(object({
    address = string
    roles   = set(string)
  }))
}

variable "cloud_init" {
  description = "User data of each host, from modules/cluster."
  type        = map(string)
}

variable "bundles" {
  description = "The file of each host's bundle, from modules/cluster."
  type        = map(string)
}

variable "node_type" {
  description = "Instance type of storage nodes."
  type        = string
  default     = "m7i.xlarge"
}

variable "other_type" {
  description = "Instance type of all others."
  type        = string
  default     = "m7i.large"
}

variable "node_gib" {
  description = "Size of a storage node's volume, GiB."
  type        = number
  default     = 500
}
