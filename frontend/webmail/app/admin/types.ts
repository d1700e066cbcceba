// The interface's shapes under the names that the pages use. They are generated: `npm run api`.
import type { components } from "../api/schema";

type Schemas = components["schemas"];

export type Cluster = Schemas["ClusterView"];
export type Region = Schemas["RegionView"];
export type Node = Schemas["NodeView"];
export type Shards = Schemas["ShardViews"];
export type Shard = Schemas["ShardView"];
export type Operations = Schemas["OperationViews"];
export type Operation = Schemas["OperationView"];
export type Plan = Schemas["PlanView"];
export type PlanStep = Schemas["PlanStepView"];
export type Begun = Schemas["OperationBegun"];
export type Queues = Schemas["QueueView"];
export type Destination = Schemas["DestinationView"];
export type QueueChanged = Schemas["QueueChanged"];
export type Indexes = Schemas["IndexViews"];
export type Index = Schemas["IndexView"];
export type Sweeps = Schemas["SweepViews"];
export type Sweep = Schemas["SweepView"];
export type Domains = Schemas["DomainViews"];
export type Domain = Schemas["DomainView"];
export type DomainCheck = Schemas["DomainCheck"];
export type Checked = Schemas["CheckedView"];
export type Account = Schemas["AccountView"];
export type AuditPage = Schemas["AuditLogPage"];
export type AuditLine = Schemas["AuditView"];
