"""Only a URI is escaped; names appended to one are names as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import storage
from pipelines.storage import StorageError
from pipelines.storage_names import local_path, location, scheme, unescaped


def test_names_that_look_escaped_stay_what_they_are(tmp_path: Path):
    for name in ("a#1.mp4", "a#2.mp4", "%2e%2e%2fescaped.mp4", "100%.mp4", "what?.mp4"):
        for folder in (str(tmp_path), f"file://{tmp_path}", f"file://{tmp_path}/"):
            uri = storage.join(folder, name)
            assert uri == f"{tmp_path}/{name}"
            assert local_path(uri) == location(uri) == unescaped(uri) == uri
            assert storage.filesystem(uri)[1] == uri


def test_uris_are_read_once():
    assert local_path("file:///a%20b/c%2523.mp4") == "/a b/c%23.mp4"
    assert local_path("file://localhost/a#1?.mp4") == "/a#1?.mp4"
    assert local_path("file:///%E9.mp4") == "/\udce9.mp4"  # (no name that UTF-8 has; not another)
    assert unescaped("s3://bucket/a%20b") == "s3://bucket/a%20b"
    assert location("s3://bucket/a%20b/") == "s3://bucket/a%20b"


def test_another_machine_is_refused_by_name():
    with pytest.raises(StorageError, match=r"file://films/in: names the machine 'films'"):
        local_path("file://films/in")


def test_schemes():
    found = {uri: scheme(uri) for uri in ("s3://b/a://c", "file:///a", "/a/s3://b", "a b://c")}
    assert list(found.values()) == ["s3", "file", "", ""]
