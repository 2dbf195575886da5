"""A checkpoint is kept whole or not at all, on local disks and in buckets, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from pipelines import checkpoints as module
from pipelines import storage
from pipelines.checkpoints import RECORD, SET_ASIDE, Checkpoints
from pipelines.storage import StorageError
from pipelines.storage_errors import named
from tests.pipelines.flaky_s3 import flaky_s3, seeded


def write(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.safetensors").write_bytes(bytes([step]) * 5000)
    (folder / "state.json").write_text(json.dumps({"steps": step}))
    return folder


def restored(store: Checkpoints, folder: Path) -> int | None:
    """The step of what is restored, whose files must be that step's."""
    folder.mkdir(exist_ok=True)
    kept = store.restore(folder)
    if kept is None:
        return None
    assert kept.metrics == {"loss": kept.step / 2}
    assert (folder / "network.safetensors").read_bytes() == bytes([kept.step]) * 5000
    assert json.loads((folder / "state.json").read_text()) == {"steps": kept.step}
    return kept.step


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path: Path) -> Checkpoints:
    if request.param == "local":
        return Checkpoints(str(tmp_path / "runs" / "a stage"))
    bucket, server = (request.getfixturevalue(name) for name in ("s3_bucket", "s3_server"))
    return Checkpoints(f"{bucket}/runs/a stage", server)


def test_the_newest_are_kept(store: Checkpoints, tmp_path: Path):
    assert restored(store, tmp_path / "r") is None and store.last_step() == 0
    for step in (5, 10, 15):
        store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
        assert store.last_step() == restored(store, tmp_path / "r") == step
    assert not storage.exists(store.folder(5), store.s3_endpoint)
    assert storage.exists(store.folder(10), store.s3_endpoint)


DAMAGES = ("cut", "altered", "gone", "no record", "record cut")


@pytest.mark.parametrize(
    ("store", "damage"), [*(("local", d) for d in DAMAGES), ("s3", "altered")], indirect=["store"]
)
def test_a_damaged_one_gives_way_to_the_one_before(store, tmp_path: Path, damage: str, caplog):
    for step in (5, 10):
        store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
    network = storage.join(store.folder(10), "network.safetensors")
    record = storage.join(store.folder(10), RECORD)
    if damage == "gone":
        storage.delete(network, store.s3_endpoint)
    elif damage == "no record":  # as after a kill while the files were being written
        storage.delete(record, store.s3_endpoint)
    elif damage == "record cut":
        storage.write_bytes(b'{"step": 10, ', record, store.s3_endpoint)
    else:
        content = b"x" * (5000 if damage == "altered" else 4000)
        storage.write_bytes(content, network, store.s3_endpoint)
    assert restored(store, tmp_path / "r") == 5
    assert ("left out" in caplog.text) == (damage != "no record")
    # From then on everybody agrees on where to go on; nothing is lost for who wants to look; and
    # the step can be kept again.
    assert store.last_step() == 5
    aside = storage.join(store.folder(10), SET_ASIDE)
    assert storage.exists(aside, store.s3_endpoint) == (damage != "no record")
    assert storage.exists(network, store.s3_endpoint) == (damage != "gone")
    store.save(write(tmp_path / "s", 10), 10, {"loss": 5})
    assert restored(store, tmp_path / "r") == 10


def test_if_none_is_whole_training_does_not_silently_start_anew(tmp_path: Path):
    """Nor at the second attempt, which Ray makes by itself."""
    store = Checkpoints(str(tmp_path / "run"))
    store.save(write(tmp_path / "s", 5), 5, {"loss": 2.5})
    state = Path(store.folder(5)) / "state.json"
    content = state.read_bytes()
    os.truncate(state, 3)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"run: none of its 1 checkpoints is whole"):
            store.restore(tmp_path)
    # The remedy that the message gives.
    state.write_bytes(content)
    (state.parent / SET_ASIDE).rename(state.parent / RECORD)
    assert restored(store, tmp_path / "r") == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("asked", ["for the copy", "of the record"])
def test_what_is_wrong_with_this_machine_costs_no_checkpoint(
    tmp_path: Path, monkeypatch, code: int, asked: str
):
    """A full scratch disk, as often as it is met: training goes on once there is room again."""
    store = Checkpoints(str(tmp_path / "run"))
    for step in (5, 10):
        store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
    before = {path: path.read_bytes() for path in tmp_path.rglob("run/*/*")}

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.retries.FIRST_WAIT", 0.001)
        if asked == "for the copy":
            patched.setattr("pipelines.storage.pafs.copy_files", fail)
        else:
            patched.setattr(storage, "read_bytes", lambda uri, _: _named(uri, fail))
        for _ in range(2):
            with pytest.raises(StorageError, match=os.strerror(code)):
                store.restore(tmp_path / "s")
            assert store.last_step() == 10
    assert {path: path.read_bytes() for path in tmp_path.rglob("run/*/*")} == before
    assert restored(store, tmp_path / "r") == 10


def _named(uri: str, call) -> None:
    with named(uri, "check it"):
        call()


def test_a_file_that_is_misread_once_is_read_again(tmp_path: Path, monkeypatch):
    store = Checkpoints(str(tmp_path / "run"))
    for step in (5, 10):
        store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
    digests = module._digest
    wrong = iter([{"sha256": "0"}])
    monkeypatch.setattr(module, "_digest", lambda path: next(wrong, None) or digests(path))
    assert restored(store, tmp_path / "r") == 10 == store.last_step()


def test_workers_that_find_the_same_damage_agree(tmp_path: Path):
    store = Checkpoints(str(tmp_path / "run"))
    for step in (5, 10):
        store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
    os.truncate(Path(store.folder(10)) / "network.safetensors", 3)
    steps: list[int | None] = []

    def worker(rank: int) -> None:
        steps.append(restored(store, tmp_path / f"rank-{rank}"))

    threads = [threading.Thread(target=worker, args=(rank,)) for rank in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == [5] * 8 and store.last_step() == 5


def test_a_save_that_was_cut_off_is_cleared_away_by_the_next(store, tmp_path: Path, caplog):
    """Also what a removal left that was cut off between record and files."""
    for step in (5, 10):
        write(tmp_path / "s", step)
        for file in (tmp_path / "s").iterdir():
            storage.publish(file, storage.join(store.folder(step), file.name), store.s3_endpoint)
    # Nothing was ever kept, so there is nothing to go on from.
    assert restored(store, tmp_path / "r") is None and store.last_step() == 0
    assert "no checkpoint was ever finished" in caplog.text
    store.save(write(tmp_path / "s", 7), 7, {"loss": 3.5})
    assert not storage.exists(store.folder(5), store.s3_endpoint)
    assert storage.exists(store.folder(10), store.s3_endpoint)  # (it may be being written)
    store.save(write(tmp_path / "s", 12), 12, {"loss": 6})
    assert not storage.exists(store.folder(10), store.s3_endpoint)
    assert storage.exists(store.folder(7), store.s3_endpoint)
    assert restored(store, tmp_path / "r") == 12


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Without the client's own attempts, and without waiting between ours."""
    monkeypatch.setattr("pipelines.storage_systems._ATTEMPTS", 1)
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.01)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CSSTA_STORMS", "1"))))
def test_bad_weather_delays_a_save_and_loses_nothing(
    s3_bucket, s3_server, tmp_path: Path, at_once, monkeypatch, seed: int
):
    monkeypatch.setattr(module, "with_retries", _patient)
    with flaky_s3(s3_server) as network:
        store = Checkpoints(f"{s3_bucket}/run", network.address)
        network.follow(seeded(seed, 0.2))
        for step in (1, 2, 3):
            store.save(write(tmp_path / "s", step), step, {"loss": step / 2})
            assert restored(store, tmp_path / "r") == step
        assert sum(n for fault, n in network.happened.items() if fault) > 5


def _patient(call):
    from pipelines.retries import with_retries

    return with_retries(call, attempts=12, first_wait=0.001, sleep=lambda seconds: None)


def test_a_save_that_fails_for_good_leaves_what_was_there(
    s3_bucket, s3_server, tmp_path: Path, at_once
):
    with flaky_s3(s3_server) as network:
        store = Checkpoints(f"{s3_bucket}/run", network.address)
        store.save(write(tmp_path / "s", 5), 5, {"loss": 2.5})
        network.follow(["error"] * 1000, lambda method, path: method == "PUT" and "step-" in path)
        with pytest.raises(StorageError, match="network"):
            store.save(write(tmp_path / "s", 10), 10, {"loss": 5})
        assert network.happened["error"] >= 4, "it was not tried again"
        network.follow([])
        assert restored(store, tmp_path / "r") == 5
