"""Model folders as they are sent, pools that leave room, and the count of fatal starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from pipelines.actors import (
    MAX_STARTS,
    Keeper,
    ModelActor,
    ModelFolderError,
    ask,
    load_packed,
    map_rows,
    may_start,
    model_digest,
    pack_model,
    plan_pool,
    start_keeper,
)
from pipelines.config import JobConfig


def config(**inference) -> JobConfig:
    return JobConfig.parse({"data": {"videos": "/v"}, "inference": inference})


def test_a_folder_arrives_as_it_was(tiny_model: Path, monkeypatch):
    monkeypatch.setattr(ray, "get_gpu_ids", list)  # (it would start a Ray of its own)
    files = pack_model(tiny_model)
    seen = {}

    def load(folder: Path, device: str):
        seen.update({path.name: path.read_bytes() for path in folder.iterdir()})
        return folder

    folder = load_packed(files, load, threads=1)
    assert seen == files and {"config.yaml", "inpainter.safetensors"} <= files.keys()
    assert not folder.exists()


def test_digest_tells_names_and_contents_apart():
    files = {"a": b"1", "b": b"2"}
    assert model_digest(files) == model_digest(dict(reversed(files.items())))
    others = [{"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1", "c": b"2"}]
    assert len({model_digest(content) for content in [files, *others]}) == 4


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ModelFolderError, match=str(folder)):
            pack_model(folder)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("actors", [1, 3, 8])
def test_a_pool_leaves_a_cpu_to_read(cpus: int, actors: int):
    pool = plan_pool(config(actors=actors), {"CPU": cpus}, videos=5)
    assert 1 <= pool.size <= min(actors, 5)
    assert pool.size * pool.cpus <= max(cpus - 1, 0.5)
    assert pool.gpus == 0


@pytest.mark.parametrize(
    ("there", "share", "size", "each"),
    [(4, 1, 4, 1), (1, 1, 1, 1), (1, 0.5, 2, 0.5), (3, 2, 1, 2), (1, 0.1, 4, 0.1), (1, 2, 4, 0)],
)
def test_no_more_actors_than_gpus_carry(there: int, share: float, size: int, each: float, caplog):
    cfg = config(actors=4, gpus_per_actor=share)
    pool = plan_pool(cfg, {"CPU": 8, "GPU": there}, videos=5)
    assert (pool.size, pool.gpus) == (size, each)
    assert ("for so many there are GPUs" in caplog.text) == (size < 4)


def test_starts_are_counted_by_video():
    keeper = Keeper()
    counts = [keeper.start("a") for _ in range(MAX_STARTS + 1)]
    assert counts == list(range(1, MAX_STARTS + 2))
    assert keeper.start("b") == 1
    keeper.end("b")
    assert keeper.start("b") == 1


def test_places_are_few_kept():
    keeper = Keeper(places=2)
    assert [keeper.claim(name) for name in "abca"] == [True, True, False, True]


def test_why_nothing_more_is_to_be_done_is_what_was_said_first():
    keeper = Keeper()
    assert keeper.given_up("a") is None
    keeper.give_up("a", "unexpected", "CUDA error")
    keeper.give_up("a")
    assert keeper.given_up("a") == ("unexpected", "CUDA error")


@pytest.mark.parametrize("actors", [1, 4, 40])
def test_videos_are_looked_through_beside_the_actors(actors: int):
    """By what is left over, however little that is, and by enough to feed them."""
    for cpus in (1, 4, actors + 1, actors + 20):
        pool = plan_pool(config(actors=actors), {"CPU": cpus}, videos=100)
        assert pool.readers >= max(1, cpus - pool.size * pool.cpus, pool.size // 8)


class Fatal(ModelActor):
    """Its process dies at the first row, and the keeper's with it; the next one answers."""

    def __call__(self, row: dict) -> dict:
        if not self.settings.exists():
            self.settings.touch()
            ray.kill(self.keeper, no_restart=False)
            os._exit(1)
        return {"bytes": self.engine, "starts": ray.get(self.keeper.start.remote("a"))}


def count_bytes(folder: Path, device: str) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.cluster
def test_a_large_model_outlives_its_actor_and_the_keeper(ray_cluster, tmp_path: Path):
    """Beyond 100 kB an actor's arguments are in the object store, and gone once it has started."""
    files = {"weights": bytes(3_000_000)}
    died = tmp_path / "died"
    rows = map_rows(config(), [{"video": "a"}], Fatal, died, files, count_bytes).take_all()
    assert rows == [{"bytes": 3_000_000, "starts": 1}] and died.exists()


@pytest.mark.cluster
def test_a_keeper_that_is_lost_ends_no_work(ray_cluster):
    keeper = start_keeper()
    assert ask(keeper.start.remote("a"), 0) == 1
    ray.kill(keeper)
    assert may_start(keeper, "a")
    assert ask(keeper.given_up.remote("a"), None) is None
