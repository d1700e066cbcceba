variable "directory" {
  description = "Where everything is rendered on the machine that runs Terraform. It holds the authority's key and the cluster's secrets: keep it, and keep it to yourself."
  type        = string
}

variable "postrider" {
  description = "The postrider binary on the machine that runs Terraform; it signs the certificates."
  type        = string
  default     = "postrider"
}

variable "rooted" {
  description = "Whether the files name paths below the directory of their host (hosts/NAME) instead of /: to run all hosts on this machine."
  type        = bool
  default     = false
}

variable "zones" {
  description = "Residency zones: whose mail is in each, and the shards that a new cluster begins with."
  type = map(object({
    domains  = list(string)
    shards   = optional(number, 6)
    replicas = optional(number, 3)
  }))

  validation {
    condition     = length(var.zones) > 0 && alltrue([for zone in var.zones : length(zone.domains) > 0])
    error_message = "There is at least one zone, and each has at least one domain."
  }
  validation {
    condition     = alltrue([for zone in var.zones : contains([1, 3, 5, 7], zone.replicas)])
    error_message = "A shard has 1, 3, 5 or 7 replicas."
  }
  validation {
    condition     = length(distinct(flatten([for zone in var.zones : zone.domains]))) == length(flatten([for zone in var.zones : zone.domains]))
    error_message = "A domain is in one zone."
  }
}

variable "regions" {
  description = "Regions: where each is in the world's eyes, and its object store. Without `store` the region's own hosts keep the objects (role \"store\", one host)."
  type = map(object({
    zone         = string
    addresses    = list(string)
    mail_host    = string
    ns_host      = string
    ns_addresses = optional(list(string))
    outgoing     = optional(list(string), [])
    store = optional(object({
      endpoint        = string
      bucket          = optional(string, "postrider")
      access_key      = string
      secret_key_file = string # on the machine that runs Terraform
      allow_plain     = optional(bool, false)
    }))
    # What clients see, from elsewhere: paths on the region's frontends. Without it the cluster's authority signs.
    certificate = optional(object({
      cert = string
      key  = string
    }))
  }))

  validation {
    condition     = alltrue([for region in var.regions : contains(keys(var.zones), region.zone)])
    error_message = "Every region is in one of var.zones."
  }
  validation {
    condition     = alltrue([for region in var.regions : length(region.addresses) > 0])
    error_message = "Every region has at least one address, at which clients reach its frontends."
  }
}

variable "hosts" {
  description = "Hosts: the region of each, the address at which the cluster's other hosts reach it, what runs there, and the number of its storage node, which no other data directory ever has."
  type = map(object({
    region  = string
    address = string
    roles   = set(string)
    node    = optional(number)
    # A device that becomes /var/lib/postrider; it is formatted where it holds no file system.
    data_device = optional(string)
  }))

  validation {
    condition     = alltrue([for host in var.hosts : contains(keys(var.regions), host.region)])
    error_message = "Every host is in one of var.regions."
  }
  validation {
    condition     = alltrue(flatten([for host in var.hosts : [for role in host.roles : contains(["node", "frontend", "worker", "dns", "store"], role)]]))
    error_message = "The roles are node, frontend, worker, dns and store."
  }
  validation {
    condition     = alltrue([for host in var.hosts : contains(host.roles, "node") == (host.node != null)])
    error_message = "A host has a `node` number if and only if it has the role \"node\"."
  }
  validation {
    condition     = length(distinct([for host in var.hosts : host.node if host.node != null])) == length([for host in var.hosts : host.node if host.node != null])
    error_message = "No two hosts have the same `node` number."
  }
  validation {
    condition     = length(distinct([for host in var.hosts : host.address])) == length(var.hosts)
    error_message = "No two hosts have the same address."
  }
  validation {
    condition = alltrue([
      for name, region in var.regions :
      (region.store != null) != (length([for host in var.hosts : host if host.region == name && contains(host.roles, "store")]) == 1)
    ])
    error_message = "Every region has either `store` or exactly one host with the role \"store\"."
  }
  validation {
    condition = alltrue([
      for name, zone in var.zones :
      length(distinct([
        for host in var.hosts : host.region
        if host.node != null && try(var.regions[host.region].zone, "") == name
      ])) >= zone.replicas
    ])
    error_message = "Every zone has storage nodes in as many regions as its shards have replicas."
  }
}

variable "ports" {
  description = "Where the processes of every host listen."
  type = object({
    grpc             = optional(number, 7101)
    rest             = optional(number, 443)
    smtp             = optional(number, 25)
    submission       = optional(number, 587)
    submissions      = optional(number, 465)
    dns              = optional(number, 53)
    store            = optional(number, 9000)
    node_metrics     = optional(number, 7301)
    frontend_metrics = optional(number, 7302)
    worker_metrics   = optional(number, 7303)
    dns_metrics      = optional(number, 7304)
    store_metrics    = optional(number, 7305)
  })
  default = {}
}

variable "rest_tls" {
  description = "Whether REST speaks TLS. Without it only a network that is protected otherwise may reach it."
  type        = bool
  default     = true
}

variable "open_sign_up" {
  description = "Whether anybody may sign up; otherwise only the holder of the admin token may make accounts."
  type        = bool
  default     = false
}

variable "outgoing" {
  description = "How mail leaves."
  type = object({
    enabled                    = optional(bool, true)
    resolver                   = optional(string)
    dnssec                     = optional(bool, true)
    relay                      = optional(string)
    allow_private_destinations = optional(bool, false)
  })
  default = {}
}

variable "dns_policy" {
  description = "What every domain says of itself: see [policy] of postrider dns."
  type = object({
    spf_fails   = optional(bool, false)
    spf_include = optional(list(string), [])
    dmarc       = optional(string, "none")
    report_to   = optional(list(string), [])
    mta_sts     = optional(string, "testing")
    caa         = optional(list(string), [])
  })
  default = {}
}

variable "user" {
  description = "The system user that the processes run as."
  type        = string
  default     = "postrider"
}

variable "binary_command" {
  description = "A command that prints the postrider binary, run once on each new host: curl, or a copy from a bucket."
  type        = string
  default     = "cat /usr/local/share/postrider/postrider"
}

variable "binary_sha256" {
  description = "What the binary hashes to; a host that gets another one starts nothing. Null: it is not compared."
  type        = string
  default     = null
}

variable "bundle_command" {
  description = "A command that prints the host's bundle (a gzipped tar), run once on each new host; HOST in it becomes the host's name."
  type        = string
  default     = "cat /usr/local/share/postrider/HOST.tar.gz"
}

variable "packages" {
  description = "Debian packages that the two commands need."
  type        = list(string)
  default     = []
}
