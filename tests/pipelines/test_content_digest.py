from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.content_digest import GLANCE, content_digest
from pipelines.storage import StorageError


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Two files, one of them longer than what is looked at, and a folder of frames."""
    noise = np.random.default_rng(0)
    for name, size in (("a.mp4", 3 * GLANCE), ("b.mp4", 100), ("c/0.png", 50), ("c/1.png", 60)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(noise.bytes(size))
    return tmp_path


def digest(bucket: Path) -> str:
    return content_digest(str(bucket / name) for name in ("a.mp4", "b.mp4", "c"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "place"), [("a.mp4", 0), ("a.mp4", -1), ("b.mp4", 50), ("c/0.png", 3), ("c/1.png", -1)]
)
def test_other_content_of_the_same_size_is_noticed(bucket: Path, name: str, place: int):
    before = digest(bucket)
    flip(bucket / name, place)
    assert digest(bucket) != before
    flip(bucket / name, place)
    assert digest(bucket) == before


def test_size_and_number_of_files_count(bucket: Path):
    found = {digest(bucket)}
    with open(bucket / "a.mp4", "r+b") as file:  # longer in the middle
        content = file.read()
        file.seek(GLANCE)
        file.write(b"more" + content[GLANCE:])
    found.add(digest(bucket))
    (bucket / "c/2.png").write_bytes((bucket / "c/1.png").read_bytes())
    found.add(digest(bucket))
    assert len(found) == 3


def test_the_place_and_the_order_do_not(bucket: Path, s3_bucket: str, s3_server: str):
    for path in bucket.rglob("*.*"):
        uri = storage.join(s3_bucket, "elsewhere", str(path.relative_to(bucket)))
        storage.publish(path, uri, s3_server)
    uris = [f"{s3_bucket}/elsewhere/{name}" for name in ("c", "b.mp4", "a.mp4")]
    assert content_digest(uris, s3_server) == digest(bucket)


def test_what_is_gone_is_named(bucket: Path):
    (bucket / "b.mp4").unlink()
    with pytest.raises(StorageError, match=r"b\.mp4: no such file"):
        digest(bucket)
