"""Workers never take the CPU that their clips are decoded on."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import ClusterConfig, ConfigError
from pipelines.worker_resources import check_memory, cpus_per_worker


@pytest.mark.parametrize(
    ("workers", "asked", "nodes", "expected"),
    [
        (1, 1, [4], 1),
        (4, 4, [8, 8, 8, 8, 0], 4),  # the RayJob; its head has none
        (4, 1, [4], 0.5),
        (2, 1, [2], 0.5),
        (1, 8, [4], 3),
        (2, 2, [4], 1),
        (1, 0.25, [1.5], 0.25),
        (2, 2, [2, 2, 1], 2),
        (2, 2, [2, 2], 1),
        (1, 4, [2, 2, 2], 2),  # a worker is on one node
    ],
)
def test_as_configured_or_as_much_as_fits(workers, asked, nodes, expected, caplog):
    cluster = ClusterConfig(workers=workers, cpus_per_worker=asked)
    with caplog.at_level(logging.WARNING):
        assert cpus_per_worker(cluster, nodes) == expected
    ours = [record for record in caplog.records if record.name.startswith("pipelines.")]
    assert bool(ours) == (expected < asked)


@pytest.mark.parametrize(("workers", "nodes"), [(1, [1]), (5, [2]), (3, [1, 1]), (1, []), (1, [0])])
def test_what_cannot_fit_is_told_at_once(workers: int, nodes: list[float]):
    with pytest.raises(ConfigError) as caught:
        cpus_per_worker(ClusterConfig(workers=workers, cpus_per_worker=2), nodes)
    message = str(caught.value)
    assert f"cluster.workers: {workers} of 2 CPUs each" in message
    assert f"nodes have {', '.join(map(str, nodes)) or 'no'} CPUs" in message


@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(0, 8), min_size=1, max_size=4))
def test_a_whole_cpu_is_left_of_the_cluster(workers: int, asked: int, nodes: list[int]):
    cluster = ClusterConfig(workers=workers, cpus_per_worker=asked)
    try:
        cpus = cpus_per_worker(cluster, nodes)
    except ConfigError:
        assert workers > 2 * (sum(nodes) - 1)
    else:
        assert 0 < cpus <= asked
        assert workers * cpus <= sum(nodes) - 1
        if cpus < asked and cpus >= 1:  # no more would have done
            assert workers > max(
                sum((have - (n == spared)) // (int(cpus) + 1) for n, have in enumerate(nodes))
                for spared in range(len(nodes))
                if nodes[spared]
            )


def test_a_node_too_small_to_decode_on_is_told_at_once():
    big, small = ({"CPU": 2, "memory": mib * 2**20} for mib in (1500, 900))
    head = {"memory": 8000 * 2**20}  # without CPUs
    check_memory(2**30, [small, big])
    with pytest.raises(ConfigError, match=r"1024 MiB of memory.* give Ray 900 MiB.*--memory"):
        check_memory(2**30, [small, head])
    with pytest.raises(ConfigError, match="give Ray no MiB"):
        check_memory(2**30, [head])
