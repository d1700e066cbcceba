data "postrider_plan" "now" {
  whole = true
}

output "steps" {
  value = [for step in data.postrider_plan.now.steps : "${step.shard}: ${step.change} (${step.reason})"]
}
