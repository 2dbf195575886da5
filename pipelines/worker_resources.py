"""What each training worker takes of the cluster, such that clips can still be decoded on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from pipelines.config import ClusterConfig, ConfigError

logger = logging.getLogger(__name__)


def cpus_per_worker(cluster: ClusterConfig, nodes: Sequence[float]) -> float:
    """As configured, or less where that would leave no CPU on any node to decode clips on.

    (Workers on every CPU would wait for ever for the clips that nobody decodes.) `nodes`: CPUs of
    each. Raises ConfigError, naming what there is and what was asked, if even halves are too much.
    """
    asked = cluster.cpus_per_worker
    smaller = [float(cpus) for cpus in range(math.ceil(asked) - 1, 0, -1)]
    for cpus in (asked, *smaller, 0.5):
        if cpus <= asked and _fit(cluster.workers, cpus, nodes):
            if cpus < asked:
                logger.warning(
                    "%g CPUs per worker rather than %g: the cluster's nodes have %s CPUs, and one "
                    "is left for decoding clips",
                    cpus, asked, _listed(nodes),
                )  # fmt: skip
            return cpus
    raise ConfigError(
        f"cluster.workers: {cluster.workers} of {asked:g} CPUs each, and one CPU for decoding "
        f"clips, do not fit on a cluster whose nodes have {_listed(nodes)} CPUs; lower "
        "cluster.workers, add nodes, or start Ray with a larger --num-cpus"
    )


def _fit(workers: int, cpus: float, nodes: Sequence[float]) -> bool:
    """Whether so many workers find a place that leaves some node a whole CPU."""
    for spared in range(len(nodes)):
        rooms = [have - (number == spared) for number, have in enumerate(nodes)]
        if rooms[spared] >= 0 and sum(math.floor(room / cpus) for room in rooms) >= workers:
            return True
    return False


def check_memory(needed: int, nodes: Sequence[Mapping[str, float]] | None = None) -> None:
    """Raise ConfigError if no node has `needed` bytes for a task that decodes, which would wait for
    them without a word. `nodes`: resources of each; None: of the cluster that this process uses."""
    if nodes is None:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [node.get("memory", 0) for node in nodes if node.get("CPU", 0)]
    if max(rooms, default=0) < needed:
        found = ", ".join(f"{room / 2**20:.0f}" for room in sorted(rooms, reverse=True)) or "no"
        raise ConfigError(
            f"a task that decodes asks for {needed / 2**20:.0f} MiB of memory, and the nodes with "
            f"CPUs give Ray {found} MiB; take larger ones, or start Ray with a larger --memory"
        )


def _listed(nodes: Sequence[float]) -> str:
    return ", ".join(f"{have:g}" for have in sorted(nodes, reverse=True)) or "no"
