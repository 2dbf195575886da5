"""What has its name is on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.storage import StorageError
from pipelines.storage_sync import UNKNOWN, write_out


@pytest.fixture
def written_out(monkeypatch) -> list[tuple[str, list[str]]]:
    """Each path that was written out, with the names that its folder had then."""
    seen = []

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        seen.append((path, sorted(os.listdir(folder))))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_content_is_on_the_disk_before_its_name_is_and_that_before_publish_ends(
    tmp_path: Path, written_out
):
    """So that a record, which is published later, never vouches for what a crash leaves of it."""
    (tmp_path / "local").write_bytes(b"newer")
    out, work = tmp_path / "out", tmp_path / "work"
    storage.publish(tmp_path / "local", str(out / "a.mp4"), None, str(work))
    (file, beside), (folder, names) = written_out
    assert Path(file).parent == work and len(beside) == 1
    assert (folder, names) == (str(out), ["a.mp4"])
    storage.write_bytes(b"{}", str(out / "a.mp4.json"), None, str(work))
    storage.copy(str(out / "a.mp4"), str(out / "b.mp4"), None, str(work))
    assert [Path(path).parent for path, _ in written_out[2::2]] == [work, work]


def test_a_disk_that_fails_is_told_and_the_older_file_stays(tmp_path: Path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    storage.write_bytes(b"older", str(tmp_path / "a"))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"Input/output error") as caught:
        storage.write_bytes(b"newer", str(tmp_path / "a"))
    assert caught.value.transient and (tmp_path / "a").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", UNKNOWN)
def test_a_file_system_that_cannot_is_taken_as_it_is(tmp_path: Path, monkeypatch, number: int):
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    storage.write_bytes(b"content", str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"content"


def test_what_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_out(str(tmp_path / "a"))
