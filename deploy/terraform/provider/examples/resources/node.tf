resource "postrider_node" "old" {
  id    = 4
  drain = true

  timeouts = {
    update = "4h"
  }
}
