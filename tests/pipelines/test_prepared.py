"""Frames of a prepared folder by number, and what is said of one that is damaged or from before.

(That clips come out as from the videos themselves is in `test_prepare`.)
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pipelines import retries
from pipelines.manifest import Rejected
from pipelines.prepared import (
    FRAMES_PER_ROW,
    Index,
    Part,
    PreparedFolder,
    PreparedVideo,
    open_prepared,
    prepared_manifest,
    read_index,
    write_index,
)
from pipelines.storage import StorageError

LENGTH = 2 * FRAMES_PER_ROW + 5
BAD = Rejected("/v/bad.mp4", "unreadable", "/v/bad.mp4: is no video")


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((16, 24, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One video over two shards, whose frame i has brightness 5 i; the first shard has 16 of them,
    after a row group of something else."""
    columns = {"uri": pa.string(), "first": pa.int64(), "frames": pa.list_(pa.binary())}
    schema = pa.schema(columns)
    firsts = {"one": [0], "two": [16, 32]}
    for name, numbers in firsts.items():
        path = tmp_path / f"{name}.parquet"
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            for first in ([None] if name == "one" else []) + numbers:
                frames = [jpeg(255)] * 3
                if first is not None:
                    end = min(first + FRAMES_PER_ROW, LENGTH)
                    frames = [jpeg(5 * number) for number in range(first, end)]
                rows = {"uri": ["/v/a.mp4"], "first": [first], "frames": [frames]}
                file.write_table(pa.table(rows, schema), row_group_size=1)
    parts = (Part("one.parquet", 1, 0, 16), Part("two.parquet", 0, 16, LENGTH - 16))
    video = PreparedVideo("/v/a.mp4", LENGTH, "24000/1001", 16, 24, parts, "glance")
    write_index(Index(16, 16, 95, "digest", (video,), (BAD,)), str(tmp_path))
    return tmp_path


def test_frames_in_any_order_across_shards(folder: Path):
    ready = PreparedFolder(str(folder))
    assert "/v/a.mp4" in ready and "/v/bad.mp4" not in ready
    order = [33, 0, 15, 16, 31, 36, 0]
    frames = ready.read("/v/a.mp4", order)
    assert frames.shape == (7, 16, 24, 3) and frames.dtype == np.uint8
    assert np.abs(frames.mean((1, 2, 3)) - 5 * np.array(order)).max() < 2
    with pytest.raises(StorageError, match=r"a\.mp4: has no frame 37 .* prepare it again"):
        ready.read("/v/a.mp4", [3, LENGTH])


def test_the_manifest_has_the_videos_as_they_were_found(folder: Path):
    manifest = prepared_manifest(str(folder), 16, 16)
    (video,) = manifest.videos
    assert (video.uri, video.frames, str(video.fps)) == ("/v/a.mp4", LENGTH, "24000/1001")
    assert manifest.rejected == (BAD,) and manifest.digest == "digest"
    with pytest.raises(StorageError, match=r"for frames of 16x16, smaller than .* 24x16"):
        prepared_manifest(str(folder), 24, 16)


def test_an_index_from_before_is_read_or_refused(folder: Path):
    path = folder / "index.json"
    content = json.loads(path.read_text())
    del content["videos"][0]["glance"]  # (not told by the first versions)
    path.write_text(json.dumps(content))
    assert read_index(str(folder)).videos[0].glance == ""
    for broken, words in (
        (content | {"version": 99}, "another version"),
        ({"version": 1}, "is damaged"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(StorageError, match=rf"index\.json: is .*{words}|{words}.*prepare"):
            read_index(str(folder))


def test_a_folder_is_opened_once(folder: Path):
    assert open_prepared(str(folder)) is open_prepared(str(folder))
    (folder / "index.json").unlink()
    with pytest.raises(StorageError, match="not a prepared folder"):
        open_prepared(str(folder) + "/")


@pytest.mark.parametrize("what", ["page", "jpeg", "gone"])
def test_damage_is_no_storage_that_is_away(folder: Path, monkeypatch, what: str):
    """(Storage that is away ends a task, damage costs a clip.)"""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    path = folder / "two.parquet"
    content = path.read_bytes()
    if what == "page":
        start = parquet.ParquetFile(path).metadata.row_group(0).column(2).data_page_offset
        path.write_bytes(content[:start] + b"\xff" * 24 + content[start + 24 :])
    elif what == "jpeg":
        path.write_bytes(content.replace(jpeg(80), b"x" * len(jpeg(80))))
    else:
        path.unlink()
    ready = PreparedFolder(str(folder))
    with pytest.raises(StorageError, match=r"two\.parquet") as caught:
        ready.read("/v/a.mp4", [16])
    assert not caught.value.transient
    assert "prepare it again" in str(caught.value)
    assert np.abs(ready.read("/v/a.mp4", [3]).mean() - 15) < 2  # what is whole is read
