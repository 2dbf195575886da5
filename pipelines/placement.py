"""Where tasks run that ask for no CPUs, so that they run even where actors hold all there are."""

from __future__ import annotations

import random
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_a_worker() -> dict[str, Any]:
    """Options of such a task: a node by chance, in proportion to its CPUs, if that still lives.

    (Ray itself would start it on any, also on a head that is to coordinate only and has none.)
    """
    cpus = {
        node["NodeID"]: node["Resources"]["CPU"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    }
    if not cpus:
        return {}
    (chosen,) = random.choices(list(cpus), list(cpus.values()))
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(chosen, soft=True)}


def among_workers() -> dict[str, str] | None:
    """The same as a label selector of Ray Data's tasks, which it spreads over what is left.

    None where no node is to be left out, or none would be left.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    without = [node["NodeID"] for node in nodes if not node["Resources"].get("CPU")]
    if not without or len(without) == len(nodes):
        return None
    return {"ray.io/node-id": f"!in({','.join(without)})"}
