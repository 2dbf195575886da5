"""Tasks that ask for no CPUs run where there are some."""

from __future__ import annotations

import pytest
import ray

from pipelines.placement import among_workers, on_a_worker


def node(name: str, cpus: float | None, alive: bool = True) -> dict:
    resources = {} if cpus is None else {"CPU": cpus}
    return {"NodeID": name * 56, "Alive": alive, "Resources": resources}


def test_not_on_a_head_without_cpus_nor_on_dead_nodes(monkeypatch: pytest.MonkeyPatch):
    nodes = [node("0", None), node("1", 2.0), node("2", 4.0, alive=False), node("3", 30.0)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    chosen = [on_a_worker()["scheduling_strategy"] for _ in range(200)]
    assert all(strategy.soft for strategy in chosen), "a node that is lost must not hold them back"
    names = [strategy.node_id[0] for strategy in chosen]
    assert set(names) == {"1", "3"} and names.count("3") > names.count("1")
    assert among_workers() == {"ray.io/node-id": f"!in({'0' * 56})"}


def test_anywhere_while_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "nodes", lambda: [node("0", None)])
    assert on_a_worker() == {} and among_workers() is None


def test_anywhere_where_all_have_cpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "nodes", lambda: [node("0", 2.0), node("1", 4.0)])
    assert among_workers() is None
