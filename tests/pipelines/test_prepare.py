"""A prepared folder gives the clips that the videos would give, and is written whole or not."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import NodeDiedError, RayTaskError

from cssta.video import write_video
from pipelines import prepare as module
from pipelines import storage
from pipelines.clip_loading import load_clips
from pipelines.clip_plan import ClipPlan
from pipelines.data_config import DataConfig
from pipelines.failures import TooManyFailuresError
from pipelines.footage import find_footage
from pipelines.manifest import Manifest, VideoRow, probe_video
from pipelines.prepare import cover_size, pack, prepare, write_shard
from pipelines.prepared import PreparedFolder, read_index
from pipelines.storage import EmptyBucketError, StorageError

SMALL = 40  # frames per shard


@pytest.fixture
def cfg(video_folder: Path) -> DataConfig:
    return DataConfig(
        videos=str(video_folder), height=32, width=32, references=3, clips_per_epoch=20
    )


def prepare_here(cfg: DataConfig, folder: Path, monkeypatch, **options):
    """`prepare` with its tasks run in this process, and small shards."""

    class Task:
        def __init__(self, function):
            self.function = function

        def options(self, **_):
            return self

        def remote(self, *arguments):
            return Done(self.function, arguments)

    class Done:
        def __init__(self, function, arguments):
            self.value = lambda: function(*arguments)

    import ray

    monkeypatch.setattr(ray, "remote", Task)
    monkeypatch.setattr(ray, "wait", lambda pending, num_returns: (pending[:1], pending[1:]))
    monkeypatch.setattr(ray, "get", lambda done: done.value())
    monkeypatch.setattr(module, "pack", lambda videos: pack(videos, SMALL))
    found = [probe_video(str(path)) for path in sorted(Path(cfg.videos).iterdir())]
    monkeypatch.setattr(module, "find_footage", lambda cfg: Manifest(tuple(found)))
    return prepare_with_tasks_here(cfg, str(folder), **options)


def prepare_with_tasks_here(cfg: DataConfig, folder: str, **options):
    return prepare(cfg, folder, say=lambda line: None, **options)


def test_clips_are_those_of_the_videos(cfg, tmp_path, monkeypatch):
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    ready = cfg.model_copy(update={"prepared": str(tmp_path / "p")})
    manifest = find_footage(ready)
    assert manifest.digest == index.digest
    assert len(list((tmp_path / "p").glob("shard-*.parquet"))) == 4  # 12 + 16, 20, 24, 28 frames
    videos = Manifest(tuple(probe_video(str(path)) for path in sorted(Path(cfg.videos).iterdir())))
    assert [(v.uri, v.frames, v.fps) for v in manifest.videos] == [
        (v.uri, v.frames, v.fps) for v in videos.videos
    ]
    rows = ClipPlan(manifest, ready, 0).rows(0, 20)
    assert rows == ClipPlan(videos, cfg, 0).rows(0, 20)
    for (_, one), (_, other) in zip(load_clips(rows, cfg), load_clips(rows, ready), strict=True):
        np.testing.assert_array_equal(one["masks"], other["masks"])
        # (half a pixel on this slope)
        assert np.abs(one["frames"].astype(int) - other["frames"]).mean() < 5


def test_a_video_over_several_shards_gives_every_frame(tmp_path, monkeypatch):
    frames = (
        np.zeros((100, 32, 48, 3), np.uint8)
        + (2 * np.arange(100, dtype=np.uint8))[:, None, None, None]
    )
    write_video(tmp_path / "v" / "long.mp4", frames, 24)
    cfg = DataConfig(videos=str(tmp_path / "v"), height=32, width=32)
    (video,) = prepare_here(cfg, tmp_path / "p", monkeypatch).videos
    assert [(part.first, part.count) for part in video.parts] == [(0, 40), (40, 40), (80, 20)]
    order = np.random.default_rng(0).permutation(100)
    read = PreparedFolder(str(tmp_path / "p")).read(video.uri, order)
    assert np.abs(read.mean((1, 2, 3)) - 2 * order).max() < 4


def test_preparing_again_goes_on_where_it_stopped(cfg, tmp_path, monkeypatch):
    folder = tmp_path / "p"
    written: list[str] = []
    plain = module.read_frames

    def interrupted(path, indices):
        written.append(path.stem)
        if path.stem == "d" and written.count("d") == 1:
            raise KeyboardInterrupt
        return plain(path, indices)

    monkeypatch.setattr(module, "read_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_here(cfg, folder, monkeypatch)
    with pytest.raises(StorageError, match=r"not a prepared folder.*jobs/prepare\.py"):
        read_index(str(folder))
    assert all(path.name.startswith("shard-") for path in folder.iterdir())  # nothing half
    again = prepare_here(cfg, folder, monkeypatch)
    assert written == ["a", "b", "c", "d", "d", "e"]
    assert again == prepare_here(cfg, tmp_path / "other", monkeypatch)
    assert prepare_here(cfg, folder, monkeypatch, quality=80).digest != again.digest


def test_a_video_that_breaks_half_way_is_named_and_left_out(cfg, tmp_path, monkeypatch):
    plain = module.read_frames

    def broken(path, indices):
        if path.stem == "c" and max(indices) > 15:
            raise ValueError("frame 16 is damaged")
        return plain(path, indices)

    monkeypatch.setattr(module, "read_frames", broken)
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 16)
    index = prepare_here(cfg, tmp_path / "p", monkeypatch)
    assert [storage.stem(video.uri) for video in index.videos] == list("abde")
    assert [bad.message.split(": ")[-1] for bad in index.rejected] == ["frame 16 is damaged"]
    # (the row group that was written of it shifts nobody else's)
    read = PreparedFolder(str(tmp_path / "p")).read(index.videos[2].uri, [0, 20])
    assert np.abs(read[..., 2].mean((1, 2)) - [120, 200]).max() < 6


def test_what_does_not_fit_or_is_damaged_says_what_to_do(cfg, tmp_path, monkeypatch):
    folder = tmp_path / "p"
    index = prepare_here(cfg, folder, monkeypatch)
    larger = cfg.model_copy(update={"prepared": str(folder), "height": 48})
    with pytest.raises(StorageError, match=r"32x32, smaller than .* 48x32; prepare it again"):
        find_footage(larger)
    shard = folder / index.videos[0].parts[0].shard
    shard.write_bytes(shard.read_bytes()[:500])
    ready = cfg.model_copy(update={"prepared": str(folder)})
    rows = ClipPlan(find_footage(ready), ready, 0).rows(0, 20)
    failed = []
    good = next(row for row in rows if row.uri == index.videos[4].uri)
    list(load_clips(rows, ready, failed.append, lambda row: [good]))
    assert {storage.stem(bad.uri) for bad in failed} == {"a", "b"}
    assert shard.name in failed[0].message
    (folder / "index.json").write_text("{}")
    with pytest.raises(StorageError, match=r"index\.json: is damaged"):
        read_index(str(folder))


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


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_node_that_dies_costs_no_video_unless_it_is_twice(cfg, tmp_path, monkeypatch, deaths):
    grey(tmp_path / "v" / "a.mp4", 20)
    cfg = cfg.model_copy(update={"videos": str(tmp_path / "v"), "max_failures": None})
    honest, calls = write_shard, []

    def written(*arguments):
        calls.append(arguments)
        if len(calls) <= deaths:
            raise NodeDiedError("its node is gone")
        return honest(*arguments)

    monkeypatch.setattr(module, "write_shard", written)
    if deaths == 1:
        assert len(prepare_here(cfg, tmp_path / "p", monkeypatch).videos) == 1
    else:
        with pytest.raises(EmptyBucketError, match=r"a\.mp4: the decoder crashed or hung"):
            prepare_here(cfg, tmp_path / "p", monkeypatch)


@given(lengths=st.lists(st.integers(1, 130), min_size=1, max_size=12), most=st.integers(1, 50))
def test_packs_hold_every_frame_once_and_no_more_than_fit(lengths: list[int], most: int):
    videos = [VideoRow(f"/{i}", n, 8, 8, Fraction(24)) for i, n in enumerate(lengths)]
    packs = list(pack(videos, most))
    assert all(0 < sum(piece.count for piece in one) <= most for one in packs)
    frames = [
        (piece.video.uri, frame)
        for one in packs
        for piece in one
        for frame in range(piece.first, piece.first + piece.count)
    ]
    assert frames == [(video.uri, frame) for video in videos for frame in range(video.frames)]
    for one in packs:
        for piece in one:  # what fits one shard is not spread over two
            assert piece.count == piece.video.frames or piece.video.frames > most


@pytest.mark.parametrize(
    ("size", "expected"),
    [((288, 512), (32, 57)), ((512, 288), (57, 32)), ((20, 30), (20, 30)), ((32, 32), (32, 32))],
)
def test_frames_just_cover_a_clip_and_are_never_enlarged(size, expected):
    assert cover_size(*size, 32, 32) == expected


def test_a_bucket_to_a_bucket(cfg, s3_bucket, s3_server, tmp_path, monkeypatch):
    uris = []
    for path in sorted(Path(cfg.videos).iterdir()):
        uris.append(f"{s3_bucket}/in/{path.name}")
        storage.publish(path, uris[-1], s3_server)
    there = cfg.model_copy(update={"videos": f"{s3_bucket}/in", "s3_endpoint": s3_server})
    prepare_here(cfg, tmp_path / "p", monkeypatch)
    videos = Manifest(tuple(probe_video(uri, s3_server) for uri in uris))
    monkeypatch.setattr(module, "find_footage", lambda cfg: videos)
    index = prepare_with_tasks_here(there, f"{s3_bucket}/out")
    here = PreparedFolder(str(tmp_path / "p"))
    for uri, video in zip(uris, read_index(str(tmp_path / "p")).videos, strict=True):
        read = PreparedFolder(f"{s3_bucket}/out", s3_server).read(uri, [11, 0])
        np.testing.assert_array_equal(read, here.read(video.uri, [11, 0]))
    assert read_index(f"{s3_bucket}/out", s3_server) == index


@pytest.mark.cluster
def test_a_crash_or_a_hang_costs_only_its_video(ray_cluster, damaged_folder, tmp_path, monkeypatch):
    honest = write_shard

    def crashing(pieces, cfg, folder, quality):  # (pickled by value, into the tasks)
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

        module.read_frames, module.SECONDS_AT_ONCE = read, 3
        try:
            return honest(pieces, cfg, folder, quality)
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
