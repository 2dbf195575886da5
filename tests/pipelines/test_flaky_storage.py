"""Storage over a bad network: what arrives is whole, or an error says that trying again may help.

The server is moto, an imitation of S3; faults are injected before it, one by one and at random
(CSSTA_STORMS=20: by so many seeds).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs as pafs

from pipelines import storage
from pipelines.retries import with_retries
from pipelines.storage import StorageError
from tests.pipelines.flaky_s3 import FAULTS, FlakyS3, flaky_s3, seeded

OLD, NEW = b"older" * 1000, b"newer" * 2000
MANY = 12  # in a row: more than any call makes requests


@pytest.fixture
def network(s3_bucket: str, s3_server: str) -> Iterator[FlakyS3]:
    with flaky_s3(s3_server) as server:
        yield server


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(NEW)
    return path


def put(content: bytes, uri: str, endpoint: str) -> None:
    """By a network that behaves."""
    storage.write_bytes(content, uri, endpoint)


def names(s3_server: str) -> list[str]:
    system, root = storage.filesystem("s3://bucket", s3_server)
    found = system.get_file_info(pafs.FileSelector(root, recursive=True))
    return sorted(info.path for info in found if info.is_file)


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Without the client's own attempts, between which it waits for seconds."""
    monkeypatch.setattr("pipelines.storage_systems._ATTEMPTS", 1)


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_the_client_survives_a_single_fault(network, s3_server, film, tmp_path, number: int):
    uri, fault = "s3://bucket/film.mp4", FAULTS[number]
    put(OLD, uri, s3_server)
    network.follow(["", fault] if number % 2 else [fault])
    if number % 3 == 0:
        assert storage.read_bytes(uri, network.address) == OLD
    elif number % 3 == 1:
        storage.publish(film, uri, network.address)
        assert storage.read_bytes(uri, s3_server) == NEW
    else:
        with storage.local_copy(uri, tmp_path, network.address) as copy:
            assert copy.read_bytes() == OLD
    assert network.happened[fault] == 1
    assert names(s3_server) == ["bucket/film.mp4"]


@pytest.mark.parametrize("fault", ["error", "deaf", "half"])
def test_a_lasting_fault_is_told_as_one_that_may_pass(
    network, s3_server, film, tmp_path, at_once, fault: str
):
    uri = "s3://bucket/film.mp4"
    put(OLD, uri, s3_server)

    def copied() -> None:
        with storage.local_copy(uri, tmp_path / "cache", network.address):
            raise AssertionError("nothing can have arrived")

    for call in (
        lambda: storage.read_bytes(uri, network.address),
        lambda: storage.publish(film, uri, network.address),
        lambda: storage.exists(uri, network.address),  # (False would have it made again)
        lambda: storage.list_videos("s3://bucket", network.address),
        copied,
    ):
        network.follow([fault] * MANY)
        with pytest.raises(StorageError, match="s3://bucket") as caught:
            call()
        assert caught.value.transient
    assert storage.read_bytes(uri, s3_server) == OLD
    assert names(s3_server) == ["bucket/film.mp4"]
    assert not list((tmp_path / "cache").iterdir())


def test_what_never_passes_is_told_so(network):
    for uri in ("s3://bucket/none.mp4", "s3://nowhere/none.mp4"):
        with pytest.raises(StorageError) as caught:
            storage.read_bytes(uri, network.address)
        assert not caught.value.transient


@pytest.mark.parametrize("seed", range(int(os.environ.get("CSSTA_STORMS", "1"))))
@pytest.mark.parametrize("most_moved", [storage.MOST_MOVED, 100_000])
def test_a_storm_leaves_nothing_half_done(
    network, s3_server, tmp_path, at_once, monkeypatch, most_moved: int, seed: int
):
    """Publishing and reading while every fourth request goes wrong, till it works.

    What is larger than `most_moved` is written under its name at once.
    """
    monkeypatch.setattr(storage, "MOST_MOVED", most_moved)
    rng = np.random.default_rng(seed)
    # (The last is published in several parts.)
    contents = [rng.bytes(int(size)) for size in (0, 1, 4_000, 300_000, 11_000_000)]
    network.follow(seeded(seed, 0.25))
    local = tmp_path / "outgoing"
    for number, content in enumerate(contents):
        uri = f"s3://bucket/out/film {number}.mp4"
        put(OLD, uri, s3_server)
        local.write_bytes(content)

        def publish(uri: str = uri, content: bytes = content) -> None:
            try:
                storage.publish(local, uri, network.address, temporary="s3://bucket/_work")
            except StorageError:
                # The answer may have got lost after the deed was done.
                assert storage.read_bytes(uri, s3_server) in (OLD, content)
                raise

        patiently(publish)
        assert storage.read_bytes(uri, s3_server) == content
        assert patiently(lambda uri=uri: storage.read_bytes(uri, network.address)) == content

        def copied(uri: str = uri) -> bytes:
            with storage.local_copy(uri, tmp_path / "cache", network.address) as copy:
                return copy.read_bytes()

        assert patiently(copied) == content
    videos = patiently(lambda: storage.list_videos("s3://bucket/out", network.address))
    assert [video.size for video in videos] == [len(content) for content in contents]
    assert not list((tmp_path / "cache").iterdir())
    # What an attempt could not clear away itself lies only where it is looked for.
    others = {name for name in names(s3_server) if not name.startswith("bucket/_work/")}
    assert others == {f"bucket/out/film {number}.mp4" for number in range(len(contents))}
    assert all(network.happened[fault] for fault in FAULTS), network.happened


def patiently(call):
    return with_retries(call, attempts=50, sleep=lambda seconds: None)
