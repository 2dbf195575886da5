"""Footage in a bucket is found and read as the same footage in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import fs as pafs

from cssta.evaluation.protocols import PAPER
from cssta.evaluation.run import Task
from pipelines.evaluation_footage import Bucket, FootageError, find_footage, named_files
from pipelines.storage import filesystem

SMALL = replace(PAPER, height=32, width=48)


def pictures(folder: Path, count: int, seed: int, mask: bool = False) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        picture = np.random.default_rng([seed, index]).integers(0, 256, (32, 48, 3), np.uint8)
        if mask:
            picture = np.zeros((32, 48), np.uint8)
            picture[8 : 12 + seed, 8:20] = 1
        cv2.imwrite(str(folder / f"{index:05d}.png"), picture)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "davis"
    for number, name in enumerate("abc"):
        pictures(root / "JPEGImages/480p" / name, 3, number)
        if name != "b":
            pictures(root / "Annotations/480p" / name, 2, number, mask=True)
    return root


def put(folder: Path, uri: str, endpoint: str) -> str:
    system, path = filesystem(uri, endpoint)
    pafs.copy_files(str(folder), path, destination_filesystem=system)
    return uri


def load(bucket: Bucket, number: int, holes: str) -> tuple[np.ndarray, np.ndarray]:
    with bucket.at(number, objects=holes == "objects") as footage:
        return Task(footage, replace(SMALL, holes=holes)).load(number)


def test_a_bucket_is_read_as_a_folder(davis: Path, s3_bucket: str, s3_server: str):
    local = find_footage(str(davis))
    remote = find_footage(put(davis, f"{s3_bucket}/davis", s3_server), s3_server)
    assert remote.footage.layout == local.footage.layout == "davis"
    assert [clip.name for clip in remote.footage.sequences] == list("abc")
    for number in range(3):
        for holes in ("freeform", "objects"):
            for one, other in zip(
                load(local, number, holes), load(remote, number, holes), strict=True
            ):
                assert (one == other).all() and one.any()
    with remote.at(1, objects=True) as footage:
        _, b, c = footage.sequences
        assert b.frames.is_dir() and c.annotations.is_dir(), "b is given c's masks"
        assert not c.frames.exists(), "what is not scored is not fetched"
    assert not b.frames.exists() and not c.annotations.exists()


def test_other_layouts(davis: Path, video_folder: Path, s3_bucket: str, s3_server: str):
    put(davis / "JPEGImages/480p", f"{s3_bucket}/vos/valid/JPEGImages", s3_server)
    vos = find_footage(f"{s3_bucket}/vos", s3_server).footage
    assert vos.layout == "youtube-vos" and len(vos.sequences) == 3
    put(video_folder, f"{s3_bucket}/plain", s3_server)
    plain = find_footage(f"{s3_bucket}/plain", s3_server)
    assert plain.footage.layout == "folder"
    assert [clip.name for clip in plain.footage.sequences] == list("abcde")
    assert load(plain, 0, "freeform")[0].shape == (12, 32, 48, 3)
    for uri in (f"{s3_bucket}/nothing", str(davis / "nothing")):
        with pytest.raises(FootageError, match="holds no sequences"):
            find_footage(uri, s3_server)


def test_masks_and_results_by_name(davis: Path, s3_bucket: str, s3_server: str):
    masks = put(davis / "Annotations/480p", f"{s3_bucket}/masks", s3_server)
    with named_files(masks, "a", s3_server) as folder:
        assert [path.name for path in folder.iterdir()] == ["a"]
        assert len(list((folder / "a").iterdir())) == 2
    with named_files(masks, "b", s3_server) as folder:
        assert not list(folder.iterdir())
    with named_files(str(davis), "a", None) as folder:
        assert folder == davis
    with named_files(None, "a", None) as folder:
        assert folder is None
