"""Pictures are found under any nesting, named by what they hold, and take little room."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import storage
from pipelines.clip_plan import ClipPlan
from pipelines.data_config import DataConfig
from pipelines.manifest import Manifest, VideoRow
from pipelines.pictures import STILL_FPS, Pictures, find_pictures
from pipelines.storage import StorageError

NAMES = ("a/airfield/1.jpg", "a/airfield/2.JPG", "a/1.png", "b c/x.jpeg", "top.jpg", "a/b/c/3.png")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    others = ("a/note.txt", "a/.hidden.jpg", ".cache/1.jpg", "empty/.keep", "b c/film.mp4")
    for number, name in enumerate((*NAMES, *others)):
        path = tmp_path / "places" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    return tmp_path / "places"


def uris(pictures: Pictures) -> list[str]:
    return [picture.uri for picture in pictures]


def test_all_pictures_by_folder_and_name(places: Path):
    found = find_pictures(str(places))
    expected = sorted(NAMES, key=lambda name: (str((places / name).parent), name))
    assert uris(found) == [f"{places}/{name}" for name in expected]
    assert found[2] == VideoRow(f"{places}/{expected[2]}", 1, 0, 0, STILL_FPS)
    assert found[-1] == found[len(NAMES) - 1]
    assert list(found.folders) == storage.list_picture_folders(str(places))
    listed = [one for folder in found.folders for one in storage.list_pictures(folder)]
    assert uris(found) == listed


def test_a_bucket_gives_the_same(places: Path, s3_bucket: str, s3_server: str):
    for path in places.rglob("*.*"):
        if path.is_file():
            storage.publish(path, f"{s3_bucket}/p/{path.relative_to(places)}", s3_server)
    here, there = find_pictures(str(places)), find_pictures(f"{s3_bucket}/p/", s3_server)
    assert uris(there) == [uri.replace(str(places), f"{s3_bucket}/p") for uri in uris(here)]
    assert there.digest == here.digest
    assert there.folders[0] == f"{s3_bucket}/p"


def test_other_names_or_sizes_are_other_pictures(places: Path):
    digests = [find_pictures(str(places)).digest]
    for change in (
        lambda: (places / "a/1.png").write_bytes(b"longer than before"),
        lambda: (places / "a/1.png").rename(places / "a/2.png"),
        lambda: (places / "a/2.png").rename(places / "b c/2.png"),
        lambda: (places / "b c/x.jpeg").unlink(),
    ):
        change()
        digests.append(find_pictures(str(places)).digest)
    assert len(set(digests)) == len(digests)
    (places / "a/note.txt").write_text("is no picture")
    os.utime(places / "top.jpg", (0, 0))
    assert find_pictures(str(places)).digest == digests[-1]


def test_none_is_no_error_but_no_folder_is(places: Path):
    assert (
        not find_pictures(str(places / "empty")) and not find_pictures(str(places / "empty")).digest
    )
    with pytest.raises(StorageError, match="nowhere"):
        find_pictures(str(places / "nowhere"))


def test_a_name_that_is_not_utf8_is_left_out(places: Path, caplog):
    with open(os.fsencode(places) + b"/a/\xff.jpg", "wb"):
        pass
    assert len(find_pictures(str(places))) == len(NAMES)
    assert "not UTF-8" in caplog.text


def test_a_plan_of_many_pictures_is_small_and_the_same():
    """Buffers travel apart from the pickle: processes of a node share them without a copy."""
    names = [f"a/category{i % 365}/{i:08}.jpg" for i in range(30_000)]
    many = Pictures("/places", pa.array(names, pa.large_string()), (), "")
    cfg = DataConfig(videos="/v", clips_per_epoch=40)
    plan = ClipPlan(Manifest(many), cfg, 3)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(plan, protocol=5, buffer_callback=buffers.append)
    assert len(content) < 5_000
    held = sum(buffer.raw().nbytes for buffer in buffers)
    assert held == pytest.approx(plan.nbytes, rel=0.01) and held < 34 * len(names)
    rows = tuple(VideoRow(f"/places/{name}", 1, 0, 0, STILL_FPS) for name in names)
    assert pickle.loads(content, buffers=buffers).rows(30, 90) == ClipPlan(
        Manifest(rows), cfg, 3
    ).rows(30, 90)
