"""Lists of videos as people write them: CSV, JSON lines or Parquet, one row per video."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet
from pyarrow import ArrowException

from pipelines.batch_masks import BatchError
from pipelines.storage import join, read_bytes
from pipelines.storage_names import scheme, unescaped

FORMATS = (".csv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class ManifestRow:
    """One video: URIs of video and mask, the wanted name of its output, options as written.

    `video` is "" where the row names none.
    """

    number: int
    video: str
    mask: str | None = None
    output: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def read_manifest(
    uri: str,
    videos: str | None = None,
    masks: str | None = None,
    s3_endpoint: str | None = None,
) -> list[ManifestRow]:
    """The rows of a manifest.

    Relative names of videos and masks are below `videos` and `masks`, which default to the
    manifest's own folder. Raises BatchError or StorageError.
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
        values = {key: value for key, value in row.items() if value is not None and value != ""}
        video, mask, output = (values.pop(key, None) for key in ("video", "mask", "output"))
        mask = None if mask is None else _located(str(mask), masks or here)
        output = None if output is None else str(output)
        video = "" if video is None else _located(str(video), videos or here)
        found.append(ManifestRow(number, video, mask, output, values))
    if not found:
        raise BatchError(f"inference.manifest {uri}: has no rows; list a video in each")
    return found


def _parse(content: bytes, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".parquet":
        return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    text = content.decode("utf-8-sig")
    if suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
        if any(None in row for row in rows):
            raise ValueError("a row has more fields than there are columns")
        return rows
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError('each line has to be an object such as {"video": "a.mp4"}')
    return rows


def _located(name: str, folder: str) -> str:
    return unescaped(name) if scheme(name) or name.startswith("/") else join(folder, name)
