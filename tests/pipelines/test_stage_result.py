"""A finished stage is taken again as it was kept, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.stage_result import DamagedResultError, StageResult, keep_result, kept_result

RESULT = StageResult("im2im", "0" * 12, b"weights" * 1000, {"loss": 1.5}, 61.5, reused=False)


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path: Path) -> tuple[str, str | None]:
    if request.param == "local":
        return str(tmp_path / "a stage"), None
    return request.getfixturevalue("s3_bucket") + "/run", request.getfixturevalue("s3_server")


def test_what_was_kept_is_found(place):
    assert kept_result(RESULT.name, RESULT.digest, *place) is None
    keep_result(RESULT, *place)
    assert kept_result(RESULT.name, RESULT.digest, *place) == replace(RESULT, reused=True)


def test_weights_without_a_record_are_no_result(place):
    """As after a kill between the two."""
    keep_result(RESULT, *place)
    folder, endpoint = place
    storage.delete(storage.join(folder, "result.json"), endpoint)
    assert kept_result(RESULT.name, RESULT.digest, *place) is None


def without(key: str) -> bytes:
    document = {"metrics": {}, "seconds": 1, "sha256": "0"}
    del document[key]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("im2im.safetensors", b"x" * 7000, "is not the file that was kept"),
        ("im2im.safetensors", b"", "is not the file that was kept"),
        ("im2im.safetensors", None, "is gone"),
        ("result.json", b'{"metrics": {', "is no record of a stage"),
        ("result.json", b"\xff\xfe", "is no record of a stage"),
        ("result.json", b"[]", "is no record of a stage"),
        *(("result.json", without(key), key) for key in ("metrics", "seconds", "sha256")),
    ],
)
def test_what_was_altered_is_named(tmp_path: Path, name: str, content: bytes | None, told: str):
    keep_result(RESULT, str(tmp_path))
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedResultError, match=f"{tmp_path}/{name}: .*{told}"):
        kept_result(RESULT.name, RESULT.digest, str(tmp_path))
