"""Preparing what was replaced, mended or damaged, with decoders, nodes and storage that fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import NodeDiedError, RayTaskError

from cssta.video import write_video
from pipelines import prepare as module
from pipelines import storage
from pipelines.data_config import DataConfig
from pipelines.failures import TooManyFailuresError
from pipelines.prepare import prepare, write_shard
from pipelines.prepared import PreparedFolder
from pipelines.storage import EmptyBucketError, StorageError
from tests.pipelines.prepare_here import prepare_here


@pytest.fixture
def cfg(video_folder: Path) -> DataConfig:
    return DataConfig(videos=str(video_folder), height=32, width=32)


def grey(path: Path, value: int, frames: int = 12) -> None:
    write_video(path, np.full((frames, 32, 48, 3), value, np.uint8), 24)


def test_a_video_that_was_replaced_is_prepared_anew(tmp_path, monkeypatch):
    cfg = DataConfig(videos=str(tmp_path / "v"), height=32, width=32)
    for name, value in (("a", 20), ("b", 90)):
        grey(tmp_path / "v" / f"{name}.mp4", value)
    before = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert prepare_here(cfg, tmp_path / "p", monkeypatch) == before
    grey(tmp_path / "v" / "a.mp4", 200)
    after = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert after.digest != before.digest
    assert [video.glance for video in before.videos][1:] == [v.glance for v in after.videos][1:]
    assert all(video.glance for video in after.videos)
    ready = PreparedFolder(str(tmp_path / "p"))
    means = [ready.read(video.uri, [0, 11]).mean() for video in after.videos]
    assert np.abs(np.array(means) - [200, 90]).max() < 3


def test_a_video_that_was_mended_is_prepared(tmp_path, monkeypatch):
    """It had failed, and still has as many frames."""
    cfg = DataConfig(videos=str(tmp_path / "v"), height=32, width=32)
    for name, value in (("a", 20), ("b", 90)):
        grey(tmp_path / "v" / f"{name}.mp4", value)
    plain = module.read_frames
    damaged = (tmp_path / "v" / "a.mp4").read_bytes()

    def read(path, indices):
        if path.read_bytes() == damaged:
            raise ValueError("frame 3 is damaged")
        return plain(path, indices)

    monkeypatch.setattr(module, "read_frames", read)
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert [storage.stem(bad.uri) for bad in index.rejected] == ["a"]
    grey(tmp_path / "v" / "a.mp4", 60)
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert [storage.stem(video.uri) for video in index.videos] == ["a", "b"]
    assert not index.rejected


def test_a_video_that_changes_between_its_shards_is_left_out(cfg, tmp_path, monkeypatch):
    for name in ("long", "short"):
        grey(tmp_path / "v" / f"{name}.mp4", 99, frames=90 if name == "long" else 9)
    cfg = DataConfig(videos=str(tmp_path / "v"), height=32, width=32, max_failures=None)
    glances = iter("xyzabc")
    monkeypatch.setattr(module, "glance", lambda uri, endpoint: next(glances))
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert [storage.stem(video.uri) for video in index.videos] == ["short"]
    assert [bad.reason for bad in index.rejected] == ["changed"]


def test_too_many_bad_videos_end_it(cfg, tmp_path, monkeypatch):
    def broken(path, indices):
        raise ValueError(f"{path.stem} is damaged")

    monkeypatch.setattr(module, "read_frames", broken)
    limited = cfg.model_copy(update={"max_failures": 2})
    with pytest.raises(TooManyFailuresError, match=r"allows 2: .*a is damaged"):
        prepare_here(limited, tmp_path / "p", monkeypatch)
    assert not (tmp_path / "p" / "index.json").exists()
    unlimited = cfg.model_copy(update={"max_failures": None})
    with pytest.raises(EmptyBucketError, match="no video could be prepared"):
        prepare_here(unlimited, tmp_path / "p", monkeypatch)


def test_storage_that_fails_is_told_as_such_and_keeps_what_there_is(cfg, tmp_path, monkeypatch):
    """As it comes out of a task; jobs make one line of it."""
    honest, calls = write_shard, []

    def written(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            cause = StorageError("s3://b/p: the server is away; check it", transient=True)
            raise RayTaskError("write_shard", "Traceback ...", cause).as_instanceof_cause()
        return honest(*arguments)

    monkeypatch.setattr(module, "write_shard", written)
    with pytest.raises(StorageError, match=r"^s3://b/p: the server is away; check it$") as caught:
        prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert type(caught.value) is StorageError
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").glob("*.parquet")}
    assert len(kept) == 2
    assert len(prepare_here(cfg, tmp_path / "p", monkeypatch).videos) == 5
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


@pytest.mark.parametrize("deaths", [3, 100])
def test_a_node_that_dies_costs_no_video(cfg, tmp_path, monkeypatch, deaths):
    grey(tmp_path / "v" / "a.mp4", 20)
    cfg = cfg.model_copy(update={"videos": str(tmp_path / "v"), "max_failures": None})
    honest, calls = write_shard, []

    def written(*arguments):
        calls.append(arguments)
        if len(calls) <= deaths:
            raise NodeDiedError("its node is gone")
        return honest(*arguments)

    monkeypatch.setattr(module, "write_shard", written)
    if deaths == 3:
        assert len(prepare_here(cfg, tmp_path / "p", monkeypatch).videos) == 1
    else:
        with pytest.raises(NodeDiedError, match="its node is gone"):
            prepare_here(cfg, tmp_path / "p", monkeypatch)


def test_a_process_that_a_file_broke_is_not_taken_at_its_word(cfg, tmp_path, monkeypatch):
    """Memory that a decoder has overwritten makes every later file of the process seem bad."""
    honest, plain, broken = write_shard, module.read_frames, []

    def read(path, indices):
        if path.stem == "b":
            broken.append(path)
        if broken:
            raise SystemError("bad call flags")
        return plain(path, indices)

    def written(pieces, cfg, folder, quality, in_new):
        if in_new:
            broken.clear()
        return honest(pieces, cfg, folder, quality, in_new)

    monkeypatch.setattr(module, "read_frames", read)
    monkeypatch.setattr(module, "write_shard", written)
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert [storage.stem(video.uri) for video in index.videos] == list("acde")
    assert [(storage.stem(bad.uri), bad.reason) for bad in index.rejected] == [("b", "unreadable")]


@pytest.mark.cluster
def test_a_crash_or_a_hang_costs_only_its_video(ray_cluster, damaged_folder, tmp_path, monkeypatch):
    honest = write_shard

    def crashing(pieces, cfg, folder, quality, in_new):  # (pickled by value, into the tasks)
        from cssta.video import reader
        from pipelines import prepare as module

        reader._decord()  # (its import takes seconds, and is not what is timed)
        plain, seconds = module.read_frames, module.SECONDS_AT_ONCE

        def read(path, indices):
            if path.stem == "b":
                os.abort()
            if path.stem == "d":
                time.sleep(600)
            return plain(path, indices)

        module.read_frames = read
        if any(piece.video.uri.endswith("/d.mp4") for piece in pieces):
            module.SECONDS_AT_ONCE = 3  # (not for the others: the machine may be busy)
        try:
            return honest(pieces, cfg, folder, quality, in_new)
        finally:
            module.read_frames, module.SECONDS_AT_ONCE = plain, seconds

    monkeypatch.setattr(module, "write_shard", crashing)
    cfg = DataConfig(videos=str(damaged_folder), height=32, width=32, max_failures=6)
    index = prepare(cfg, str(tmp_path / "out"), say=lambda line: None)
    assert [storage.stem(video.uri) for video in index.videos] == list("ace")
    crashed = [storage.name(bad.uri) for bad in index.rejected if bad.reason == "crashed"]
    assert crashed == ["b.mp4", "d.mp4"]
    assert len(index.rejected) == 6
    for video in index.videos:
        read = PreparedFolder(str(tmp_path / "out")).read(video.uri, [0, 11])
        assert read.shape == (2, 32, 43, 3)
