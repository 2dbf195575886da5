"""Copies of remote files on a node: one for all, bounded, and gone with their job."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines import node_cache
from pipelines.node_cache import NodeCache, claim_scratch
from pipelines.storage import StorageError, join, publish


@pytest.fixture
def remote(s3_bucket: str, s3_server: str, tmp_path: Path):
    """Five files of 1000 bytes, and a cache for two of them."""
    for number in range(5):
        (tmp_path / "file").write_bytes(bytes([number]) * 1000)
        publish(tmp_path / "file", join(s3_bucket, f"in/{number}.mp4"), s3_server)
    uris = [join(s3_bucket, f"in/{number}.mp4") for number in range(5)]
    return uris, NodeCache(tmp_path / "cache", 2500, s3_server)


def copies(cache: NodeCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*.mp4")]


def test_a_file_is_copied_once(remote, monkeypatch):
    uris, cache = remote
    fetched = []
    real = node_cache.fetch
    monkeypatch.setattr(node_cache, "fetch", lambda *a: (fetched.append(a[0]), real(*a))[1])
    for _ in range(3):
        with cache.open(uris[1]) as path, cache.open(uris[1]) as same:
            assert path == same and path.read_bytes() == b"\1" * 1000
    assert fetched == [uris[1]]
    with cache.open(uris[1], "changed since"):
        assert len(fetched) == 2


def test_what_nobody_uses_makes_room(remote):
    uris, cache = remote
    with cache.open(uris[0]) as used:
        for uri in uris[1:]:
            with cache.open(uri) as path:
                assert path.exists() and used.exists()
        assert len(copies(cache)) <= 2


def test_what_is_on_its_way_counts_as_if_it_were_there(remote, monkeypatch):
    uris, cache = remote
    for uri in uris[:2]:
        with cache.open(uri):
            pass
    begun, go_on = threading.Event(), threading.Event()
    real = node_cache.fetch

    def slow(uri: str, *arguments):
        if uri == uris[2]:
            begun.set()
            assert go_on.wait(30)
        return real(uri, *arguments)

    def take() -> None:
        with cache.open(uris[2]):
            pass

    monkeypatch.setattr(node_cache, "fetch", slow)
    other = threading.Thread(target=take)
    other.start()
    try:
        assert begun.wait(30)
        with cache.open(uris[3]):
            assert [path.name for path in copies(cache)] == ["3.mp4"]  # and one that comes
    finally:
        go_on.set()
        other.join()
    assert {path.name for path in copies(cache)} == {"2.mp4", "3.mp4"}
    assert not list(cache.folder.glob("*.room"))


def test_copies_that_a_killed_process_was_making_take_no_room(remote):
    uris, cache = remote
    with cache.open(uris[0]) as path:
        slot = path.parent
    slot.rename(slot.with_suffix(".partial"))
    slot.with_suffix(".room").write_text("2400")
    with cache.open(uris[1]):
        assert not list(cache.folder.glob("*.room")) and not list(cache.folder.glob("*.partial"))


def test_local_files_are_used_in_place(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    cache = NodeCache(tmp_path / "cache", 10)
    with cache.open(str(tmp_path / "a.mp4")) as path:
        assert path == tmp_path / "a.mp4"
    assert not cache.folder.exists()


def test_what_is_not_there_is_named_and_leaves_nothing(remote):
    uris, cache = remote
    with pytest.raises(StorageError, match=r"in/9\.mp4"), cache.open(uris[0].replace("0", "9")):
        pass
    assert not copies(cache)


def test_folders_of_killed_jobs_are_removed_and_those_of_others_are_not(tmp_path: Path):
    """Others: held by a process that lives."""
    program = (
        "import sys, time; from pathlib import Path; from pipelines.node_cache import *\n"
        "claim_scratch(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    alive = tmp_path / "cssta-batch-alive"
    other = subprocess.Popen(
        [sys.executable, "-c", program, alive],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert other.stdout.readline() == b"held\n"
        killed = tmp_path / "cssta-batch-killed"
        killed.mkdir()
        (killed / ".lock").touch()
        (killed / "copy.mp4").touch()
        own = claim_scratch(tmp_path / "cssta-batch-own")
        assert own.exists() and alive.exists() and not killed.exists()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    claim_scratch(tmp_path / "cssta-batch-next")
    assert not alive.exists() and own.exists()
