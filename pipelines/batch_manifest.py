"""Lists of videos as people write them: CSV, JSON lines or Parquet, one row per video."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet
from pyarrow import ArrowException

from pipelines.batch_masks import BatchError
from pipelines.storage import join, read_bytes
from pipelines.storage_names import scheme, unescaped

FORMATS = (".csv", ".jsonl", ".ndjson", ".parquet")
DOUBLED = "its output is one of those named by several rows, such as {!r}; give each its own"


@dataclass(frozen=True)
class ManifestRow:
    """One video: URIs of video and mask, the wanted name of its output, options as written.

    `video` is "" where the row names none. `problem`: in words, what is wrong with the row itself;
    `is_read`: all that it says is known.
    """

    number: int
    video: str
    mask: str | None = None
    output: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    is_read: bool = True


def read_manifest(
    uri: str,
    videos: str | None = None,
    masks: str | None = None,
    s3_endpoint: str | None = None,
) -> list[ManifestRow]:
    """The rows of a manifest; what is wrong with single ones is said in them.

    Relative names of videos and masks are below `videos` and `masks`, which default to the
    manifest's own folder. Options are columns of their own, or keys of one JSON object in the
    column `options`. Raises BatchError or StorageError.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in FORMATS:
        raise BatchError(f"inference.manifest {uri}: name one of {', '.join(FORMATS)}")
    content = read_bytes(uri, s3_endpoint)
    try:
        rows = _parse(content, suffix)
    except (ValueError, csv.Error, ArrowException) as error:
        raise BatchError(f"inference.manifest {uri}: cannot be read ({error})") from None
    here = unescaped(uri).rpartition("/")[0]
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(_row(number, row, videos or here, masks or here))
        except ValueError as error:
            found.append(ManifestRow(number, "", problem=str(error), is_read=False))
    if not found:
        raise BatchError(f"inference.manifest {uri}: has no rows; list a video in each")
    return _with_outputs_of_their_own(found)


def _parse(content: bytes, suffix: str) -> list[dict[Any, Any] | bytes]:
    """Rows; of JSON lines those that are not empty, as they are."""
    if suffix == ".parquet":
        return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    if suffix == ".csv":
        text = content.decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [line for line in lines if line.strip()]


def _row(number: int, row: dict[Any, Any] | bytes, videos: str, masks: str) -> ManifestRow:
    """Raises ValueError, whose message says what is wrong with the row."""
    if isinstance(row, bytes):
        row = _object(row)
    if None in row:
        raise ValueError("it has more fields than there are columns")
    values = _given(row)
    video, mask, output = (values.pop(key, None) for key in ("video", "mask", "output"))
    mask = None if mask is None else _located(str(mask), masks)
    output = None if output is None else str(output)
    video = "" if video is None else _located(str(video), videos)
    found = ManifestRow(number, video, mask, output)
    try:
        more = _given(_object(values.pop("options", {})))
        twice = [key for key in more if key in values]
        if twice:
            raise ValueError(f"{twice[0]} is a column and in options; give it once")
    except ValueError as error:  # (what it is about is known)
        return replace(found, problem=f"options: {error}", is_read=False)
    return replace(found, options={**more, **values})


def _given(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None and value != ""}


def _object(content: Any) -> dict[str, Any]:
    """A JSON object, or text of one; pairs, as Parquet's maps are read, too."""
    try:
        found = json.loads(content) if isinstance(content, (str, bytes)) else dict(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{_shown(content)} is no JSON object ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f'{_shown(content)} is no JSON object such as {{"dilate": 4}}')
    return found


def _shown(content: Any) -> str:
    text = content.decode(errors="backslashreplace") if isinstance(content, bytes) else str(content)
    return repr(text.strip()[:80])


def _with_outputs_of_their_own(rows: list[ManifestRow]) -> list[ManifestRow]:
    """A problem for each of the rows that name the same output."""
    given = Counter(row.output for row in rows if row.output)
    return [
        replace(row, problem=DOUBLED.format(row.output))
        if row.output and given[row.output] > 1 and not row.problem
        else row
        for row in rows
    ]


def _located(name: str, folder: str) -> str:
    return unescaped(name) if scheme(name) or name.startswith("/") else join(folder, name)
