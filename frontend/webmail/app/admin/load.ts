// Who bears how much, by the primaries of shards.
import type { Shard } from "./types";

export interface Load {
  node: number;
  primaries: number;
  bytes: number;
  /** Of the node that bears most, 0 to 1. */
  part: number;
}

/** By node. A node that leads nothing, and has replicas, is there with nothing. */
export function byNode(shards: readonly Pick<Shard, "primary" | "replicas" | "bytes">[]): Load[] {
  const found = new Map<number, Load>();
  const of = (node: number): Load => {
    let load = found.get(node);
    if (!load) found.set(node, (load = { node, primaries: 0, bytes: 0, part: 0 }));
    return load;
  };
  for (const shard of shards) {
    shard.replicas.forEach(of);
    if (shard.primary === null || shard.primary === undefined) continue;
    const load = of(shard.primary);
    load.primaries += 1;
    load.bytes += shard.bytes;
  }
  const loads = [...found.values()].sort((one, other) => one.node - other.node);
  const most = Math.max(1, ...loads.map((load) => load.bytes));
  for (const load of loads) load.part = load.bytes / most;
  return loads;
}
