"""Buckets are listed, read and written alike, be they folders or S3 (an imitation: moto)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import av
import boto3
import numpy as np
import pyarrow
import pytest
from pyarrow import fs as pafs

from cssta.video import open_source
from pipelines import storage
from pipelines.node_cache import NodeCache
from pipelines.storage import EmptyBucketError, StorageError


@pytest.fixture(params=["local", "s3"])
def bucket(request, tmp_path: Path) -> tuple[str, str | None]:
    """(URI, endpoint) of an empty place."""
    if request.param == "local":
        (tmp_path / "bucket").mkdir()
        return str(tmp_path / "bucket"), None
    return request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_server")


def put(tmp_path: Path, bucket: tuple[str, str | None], name: str, content: bytes = b"x") -> str:
    local = tmp_path / "outgoing"
    local.write_bytes(content)
    uri = storage.join(bucket[0], name)
    storage.publish(local, uri, bucket[1])
    return uri


def test_videos_are_listed_sorted_and_nothing_else(tmp_path: Path, bucket):
    names = [
        "b.mp4",
        "a/film 1 #2.MOV",
        "ü.webm",
        "notes.txt",
        "a/.hidden.mp4",
        ".tmp/c.mp4",
        "x.jpg",
    ]
    for name in names:
        put(tmp_path, bucket, name, name.encode())
    videos = storage.list_videos(*bucket)
    assert [video.uri for video in videos] == [
        storage.join(bucket[0], name) for name in ("a/film 1 #2.MOV", "b.mp4", "ü.webm")
    ]
    assert [video.size for video in videos] == [len("a/film 1 #2.MOV"), 5, len("ü.webm".encode())]
    assert storage.list_videos(storage.join(bucket[0], "b.mp4"), bucket[1]) == [videos[1]]


def test_folders_of_frames_are_videos_where_there_are_no_files(tmp_path: Path, bucket):
    for name in ("bear/00000.jpg", "bear/00001.jpg", "dog/0.png", "ImageSets/val.txt"):
        put(tmp_path, bucket, name, b"abc")
    videos = storage.list_videos(*bucket)
    assert [(storage.stem(video.uri), video.size) for video in videos] == [("bear", 6), ("dog", 3)]
    assert storage.list_picture_folders(*bucket) == [video.uri for video in videos]
    assert [storage.stem(uri) for uri in storage.list_pictures(videos[0].uri, bucket[1])] == [
        "00000",
        "00001",
    ]
    with storage.local_copy(videos[0].uri, s3_endpoint=bucket[1]) as folder:
        assert folder.name == "bear"
        assert sorted(picture.name for picture in folder.iterdir()) == ["00000.jpg", "00001.jpg"]


def test_an_empty_bucket_is_named(tmp_path: Path, bucket):
    put(tmp_path, bucket, "readme.txt")
    with pytest.raises(EmptyBucketError, match=r"bucket: holds no videos \(1 other.*mp4"):
        storage.list_videos(*bucket)
    with pytest.raises(EmptyBucketError, match="pictures"):
        storage.list_picture_folders(*bucket)


def test_a_place_that_does_not_exist_is_named(bucket):
    missing = storage.join(bucket[0], "missing")
    assert not storage.exists(missing, bucket[1])
    with pytest.raises(StorageError, match="missing: does not exist"):
        storage.list_videos(missing, bucket[1])
    with (
        pytest.raises(StorageError, match="missing: no such file"),
        storage.local_copy(missing, s3_endpoint=bucket[1]),
    ):
        pass


def test_what_is_published_can_be_copied_back_and_leaves_nothing(tmp_path: Path, bucket):
    content = bytes(range(256)) * 50_000  # (12.8 MB: more than one part on S3)
    uri = put(tmp_path, bucket, "deep/er/film.mp4", b"older")
    uri = put(tmp_path, bucket, "deep/er/film.mp4", content)
    assert storage.exists(uri, bucket[1])
    cache = tmp_path / "cache"
    with storage.local_copy(uri, cache, bucket[1]) as path:
        assert path.read_bytes() == content
        assert (cache in path.parents) == (bucket[1] is not None)
    assert path.exists() == (bucket[1] is None)
    system, root = storage.filesystem(*bucket)
    files = system.get_file_info(pafs.FileSelector(root, recursive=True))
    assert [file.base_name for file in files if file.is_file] == ["film.mp4"]


def test_a_failed_publication_leaves_the_older_file(tmp_path: Path, bucket, monkeypatch):
    put(tmp_path, bucket, "film.mp4", b"older")

    def half(source, destination, *, destination_filesystem):
        with destination_filesystem.open_output_stream(destination) as stream:
            stream.write(b"ne")

    monkeypatch.setattr(pafs, "copy_files", half)
    with pytest.raises(StorageError, match="2 of 5 bytes"):
        put(tmp_path, bucket, "film.mp4", b"newer")

    def broken(*args, **kwargs):
        half(*args, **kwargs)
        raise pyarrow.ArrowIOError("connection reset")

    monkeypatch.setattr(pafs, "copy_files", broken)
    with pytest.raises(StorageError, match=r"film.mp4: connection reset; check"):
        put(tmp_path, bucket, "film.mp4", b"newer")
    system, root = storage.filesystem(*bucket)
    (file,) = system.get_file_info(pafs.FileSelector(root))
    assert system.open_input_stream(file.path).read() == b"older"


def test_publishing_into_a_missing_bucket_is_named(tmp_path: Path, s3_bucket, s3_server):
    (tmp_path / "film.mp4").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"s3://absent/film\.mp4"):
        storage.publish(tmp_path / "film.mp4", "s3://absent/film.mp4", s3_server)


def test_endpoint_from_the_environment(tmp_path: Path, s3_bucket, s3_server, monkeypatch):
    put(tmp_path, (s3_bucket, s3_server), "film.mp4")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert [video.uri for video in storage.list_videos(s3_bucket)] == ["s3://bucket/film.mp4"]


def test_nobody_answering_is_told_soon(s3_bucket):
    with pytest.raises(StorageError, match="s3://bucket"):
        storage.list_videos(s3_bucket, "http://127.0.0.1:9")


@pytest.mark.parametrize("uri", ["gs://bucket/films", "s3://", "https://example.org/films"])
def test_unsupported_locations_are_named(uri: str):
    with pytest.raises(StorageError, match=uri):
        storage.filesystem(uri)


def test_file_uris_and_relative_paths_are_local(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a film.mp4").write_bytes(b"x")
    (relative,) = storage.list_videos(".")
    (by_uri,) = storage.list_videos(f"file://{tmp_path}/a%20film.mp4")
    assert relative == by_uri == storage.VideoFile(str(tmp_path / "a film.mp4"), 1)


def test_only_what_can_pass_is_called_transient(s3_bucket, s3_server, tmp_path: Path):
    for uri, endpoint, transient in (
        ("s3://bucket/a", "http://127.0.0.1:9", True),
        ("s3://absent/a", s3_server, False),
        ("s3://bucket/absent", s3_server, False),
        (str(tmp_path / "absent"), None, False),
    ):
        with pytest.raises(StorageError) as caught:
            storage.read_bytes(uri, endpoint)
        assert caught.value.transient == transient, caught.value


def test_temporary_names_can_be_kept_in_one_place(tmp_path: Path, bucket, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"film")
    uri, work = storage.join(bucket[0], "film.mp4"), storage.join(bucket[0], "_work/a")
    seen = []
    real = pafs.copy_files

    def spy(source, destination, **options):
        seen.append(destination)
        real(source, destination, **options)

    monkeypatch.setattr(pafs, "copy_files", spy)
    storage.publish(tmp_path / "film.mp4", uri, bucket[1], work)
    assert len(seen) == 1 and "/_work/a/" in seen[0]
    assert storage.read_bytes(uri, bucket[1]) == b"film"
    for gone in (work, work, uri):
        storage.delete(gone, bucket[1])
        assert not storage.exists(gone, bucket[1])


@pytest.mark.parametrize("most_moved", [storage.MOST_MOVED, 1])
def test_the_last_word_before_a_file_gets_its_name(tmp_path, bucket, monkeypatch, most_moved: int):
    monkeypatch.setattr(storage, "MOST_MOVED", most_moved)
    uri = put(tmp_path, bucket, "film.mp4", b"older")
    work = storage.join(bucket[0], "_work/a")
    (tmp_path / "new").write_bytes(b"newer")
    asked = []

    def check() -> None:
        asked.append(storage.read_bytes(uri, bucket[1]))
        if len(asked) == 1:
            raise KeyError("no")

    with pytest.raises(KeyError):
        storage.publish(tmp_path / "new", uri, bucket[1], work, None, check)
    assert storage.read_bytes(uri, bucket[1]) == b"older"
    storage.publish(tmp_path / "new", uri, bucket[1], work, None, check)
    assert storage.read_bytes(uri, bucket[1]) == b"newer" and asked == [b"older"] * 2
    system, root = storage.filesystem(*bucket)
    files = system.get_file_info(pafs.FileSelector(root, recursive=True))
    assert [file.base_name for file in files if file.is_file] == ["film.mp4"]


def test_what_is_too_large_to_be_moved_goes_to_its_name_at_once(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(storage, "MOST_MOVED", 10)
    uri, work = storage.join(bucket[0], "film.mp4"), storage.join(bucket[0], "_work/a")
    for content in (b"a" * 11, b"b" * 12_000_000):  # in one part, and in several
        put(tmp_path, bucket, "film.mp4", content)
        assert storage.read_bytes(uri, bucket[1]) == content
        assert storage.sha256(uri, bucket[1]) == hashlib.sha256(content).hexdigest()
    to = storage.join(bucket[0], "sub/copy.mp4")
    storage.copy(uri, to, bucket[1], work)
    assert storage.read_bytes(to, bucket[1]) == content == storage.read_bytes(uri, bucket[1])

    def cut_short(source: str, destination: str, *, destination_filesystem) -> None:
        with destination_filesystem.open_output_stream(destination) as stream:
            stream.write(b"beginn")
        raise OSError("the disk cannot be read")

    monkeypatch.setattr(pafs, "copy_files", cut_short)
    with pytest.raises(StorageError, match="cannot be read"):
        put(tmp_path, bucket, "film.mp4", b"c" * 11)
    if bucket[1]:  # (on a disk the old one is replaced when the new one is whole)
        assert not storage.exists(uri, bucket[1]), "half a file has its final name"
    else:
        assert storage.read_bytes(uri) == content

    def never(*arguments, **options) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(pafs, "copy_files", never)
    with pytest.raises(StorageError, match="no answer"):
        put(tmp_path, bucket, "sub/copy.mp4", b"d" * 11)
    assert storage.read_bytes(to, bucket[1]) == content, "the old one went though no new one came"


def test_copies_within_a_place(tmp_path: Path, bucket):
    uri = put(tmp_path, bucket, "a b.mp4", b"film")
    to = put(tmp_path, bucket, "deep/er/c#.mp4", b"older")
    storage.copy(uri, to, bucket[1])
    assert storage.read_bytes(to, bucket[1]) == b"film" == storage.read_bytes(uri, bucket[1])
    with pytest.raises(StorageError, match="nowhere"):
        storage.copy(storage.join(bucket[0], "nowhere.mp4"), to, bucket[1])
    assert storage.read_bytes(to, bucket[1]) == b"film"


def put_key(s3_server: str, key: str) -> None:
    """As it is: other clients make a path of it first."""
    client = boto3.client("s3", endpoint_url=s3_server)
    client.put_object(Bucket="bucket", Key=key, Body=b"x")


def test_keys_of_a_bucket_do_not_lead_out_of_the_copy(tmp_path: Path, s3_bucket, s3_server):
    for key in ("walk/0.png", "walk/deeper/1.png", "walk/../../evil.txt", "walk/../evil.txt"):
        put_key(s3_server, f"in/{key}")
    folder = tmp_path / "a/b/scratch"
    folder.mkdir(parents=True)
    copy = storage.fetch("s3://bucket/in/walk", folder, s3_server)
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert copy == folder / "walk" and found == ["a/b/scratch/walk/0.png"]


@pytest.mark.parametrize("uri", ["s3://bucket/in/..", "s3://bucket/in/walk/."])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, s3_bucket, s3_server, uri: str):
    cache = NodeCache(tmp_path / "cache", 1e6, s3_server)
    with pytest.raises(StorageError, match="cannot be the name"):
        storage.fetch(uri, tmp_path, s3_server)
    with pytest.raises(StorageError, match="cannot be the name"), cache.open(uri):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_holds_such_a_name_is_refused(tmp_path: Path, s3_bucket, s3_server):
    put_key(s3_server, "in/walk/..")
    with pytest.raises(StorageError, match="cannot be the name"):
        storage.fetch("s3://bucket/in/walk", tmp_path, s3_server)


@pytest.mark.parametrize(
    ("suffix", "codec", "container"),
    [
        (".mpg", "mpeg1video", "mpeg"),
        (".ts", "mpeg2video", "mpegts"),
        (".mxf", "mpeg2video", "mxf"),
        (".flv", "flv1", "flv"),
        (".wmv", "wmv2", "asf"),
        (".vob", "mpeg2video", "vob"),
    ],
)
def test_what_is_listed_can_be_opened(tmp_path: Path, suffix: str, codec: str, container: str):
    with av.open(str(tmp_path / f"a{suffix}"), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(6):
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    (video,) = storage.list_videos(str(tmp_path))
    assert len(list(open_source(video.uri).frames())) == 6


def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path: Path, caplog):
    for name in (b"a.mp4", b"\xe9t\xe9.mp4", b"b.\xe9"):
        os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
    assert [storage.stem(video.uri) for video in storage.list_videos(str(tmp_path))] == ["a"]
    ours = [r.getMessage() for r in caplog.records if r.name == "pipelines.storage_listing"]
    assert len(ours) == 2 and all("rename it" in line for line in ours)
