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
