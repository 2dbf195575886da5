"""A prepared folder gives the clips that the videos would give, and is written whole or not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssta.video import write_video
from pipelines import prepare as module
from pipelines import storage
from pipelines.clip_loading import load_clips
from pipelines.clip_plan import ClipPlan
from pipelines.data_config import DataConfig
from pipelines.footage import find_footage
from pipelines.manifest import Manifest, VideoRow, probe_video
from pipelines.prepare import cover_size, pack
from pipelines.prepared import PreparedFolder, read_index
from pipelines.storage import StorageError
from tests.pipelines.prepare_here import prepare_here, prepare_with_tasks_here


@pytest.fixture
def cfg(video_folder: Path) -> DataConfig:
    return DataConfig(
        videos=str(video_folder), height=32, width=32, references=3, clips_per_epoch=20
    )


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
