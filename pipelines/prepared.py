"""A prepared folder: a bucket's videos as JPEG frames of training size, in Parquet shards.

    index.json          the settings and the videos, with where each one's frames are
    shard-DIGEST.parquet   one row group for every FRAMES_PER_ROW frames of a video

Clips are planned as from the videos themselves; only where their frames are read from differs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np
import pyarrow.parquet as parquet
from pyarrow import ArrowInvalid

from pipelines import storage
from pipelines.manifest import Manifest, Rejected, VideoRow
from pipelines.retries import with_retries
from pipelines.storage import StorageError
from pipelines.storage_errors import named

INDEX = "index.json"
VERSION = 1
FRAMES_PER_ROW = 16
OPEN_SHARDS = 16  # per process; each holds a footer and a file handle
REMEDY = "prepare it again with jobs/prepare.py"


@dataclass(frozen=True)
class Part:
    """Frames `first` to `first + count - 1` of a video: row groups from `row` on of a shard."""

    shard: str
    row: int
    first: int
    count: int


@dataclass(frozen=True)
class PreparedVideo:
    """A video as it was found, the size of its prepared frames, and where they are.

    `glance`: what tells the video from another of its name (`content_digest`).
    """

    uri: str
    frames: int
    fps: str
    height: int
    width: int
    parts: tuple[Part, ...]
    glance: str = ""


@dataclass(frozen=True)
class Index:
    """What a prepared folder holds. Frames just cover `height` x `width`; `quality` is JPEG's.

    `digest` tells this content from any other.
    """

    height: int
    width: int
    quality: int
    digest: str
    videos: tuple[PreparedVideo, ...]
    rejected: tuple[Rejected, ...]

    def manifest(self) -> Manifest:
        """The videos under their own addresses, as `build_manifest` found them."""
        rows = [
            VideoRow(video.uri, video.frames, video.height, video.width, Fraction(video.fps))
            for video in self.videos
        ]
        return Manifest(tuple(rows), self.rejected, self.digest)


def write_index(index: Index, folder: str, s3_endpoint: str | None = None) -> None:
    """The last thing written: a folder without it is not prepared yet. Raises StorageError."""
    document = json.dumps({"version": VERSION, **asdict(index)})
    storage.write_bytes(document.encode(), storage.join(folder, INDEX), s3_endpoint)


def read_index(folder: str, s3_endpoint: str | None = None) -> Index:
    """Raises StorageError where the folder is not a prepared one, or only half."""
    path = storage.join(folder, INDEX)
    if not storage.exists(path, s3_endpoint):
        raise StorageError(f"{folder}: is not a prepared folder (no {INDEX}); {REMEDY}")
    try:
        content = json.loads(storage.read_bytes(path, s3_endpoint))
        if content.pop("version") != VERSION:
            raise StorageError(f"{path}: is of another version of cssta; {REMEDY}")
        videos = [
            PreparedVideo(**{**video, "parts": tuple(Part(**part) for part in video["parts"])})
            for video in content.pop("videos")
        ]
        rejected = [Rejected(**bad) for bad in content.pop("rejected")]
        return Index(**content, videos=tuple(videos), rejected=tuple(rejected))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise StorageError(f"{path}: is damaged ({error!r}); {REMEDY}") from error


def prepared_manifest(
    folder: str, height: int, width: int, s3_endpoint: str | None = None
) -> Manifest:
    """The videos of a prepared folder for clips of height x width.

    Raises StorageError where it is not prepared, or for smaller frames than these.
    """
    index = read_index(folder, s3_endpoint)
    if index.height < height or index.width < width:
        raise StorageError(
            f"{folder}: is prepared for frames of {index.height}x{index.width}, smaller than "
            f"data.height and data.width, {height}x{width}; {REMEDY}"
        )
    return index.manifest()


class PreparedFolder:
    """Random access to the frames of a prepared folder."""

    def __init__(self, folder: str, s3_endpoint: str | None = None) -> None:
        self._folder, self._endpoint = folder, s3_endpoint
        self._videos = {video.uri: video for video in read_index(folder, s3_endpoint).videos}
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(self._open)

    def __contains__(self, uri: str) -> bool:
        return uri in self._videos

    def read(self, uri: str, indices: Sequence[int]) -> np.ndarray:
        """Frames by number, in any order, uint8 (T, h, w, 3) RGB. Raises StorageError."""
        video = self._videos[uri]
        rows: dict[tuple[str, int], list[bytes]] = {}
        frames = {}
        for index in sorted(set(indices)):
            shard, row, place = _locate(video, index)
            if (shard, row) not in rows:
                rows[shard, row] = self._read_row(shard, row)
            frames[index] = _decode(rows[shard, row][place], shard, uri, index)
        return np.stack([frames[index] for index in indices])

    def _read_row(self, shard: str, row: int) -> list[bytes]:
        def read() -> list[bytes]:
            with named(uri, REMEDY):
                try:
                    return self._shard(shard).read_row_group(row, ["frames"])["frames"][0].as_py()
                except ArrowInvalid as error:  # (not the storage's fault: no use trying again)
                    raise StorageError(f"{uri}: is damaged ({error}); {REMEDY}") from error

        uri = storage.join(self._folder, shard)
        try:
            return with_retries(read)
        except StorageError as error:
            # Damage, too, is told as an OSError; one of a disk has a number, one of S3 its name.
            cause = error.__cause__
            told = getattr(cause, "errno", None) is not None or "AWS Error" in str(cause)
            if told or not error.transient:
                raise
            raise StorageError(f"{uri}: is damaged ({cause}); {REMEDY}") from error

    def _open(self, shard: str) -> parquet.ParquetFile:
        system, path = storage.filesystem(storage.join(self._folder, shard), self._endpoint)
        return parquet.ParquetFile(system.open_input_file(path))


@lru_cache(maxsize=4)
def open_prepared(folder: str, s3_endpoint: str | None = None) -> PreparedFolder:
    """The folder, opened once per process. Raises StorageError."""
    return PreparedFolder(folder, s3_endpoint)


def _locate(video: PreparedVideo, index: int) -> tuple[str, int, int]:
    """Shard, row group and place in it of a frame."""
    for part in video.parts:
        if part.first <= index < part.first + part.count:
            row, place = divmod(index - part.first, FRAMES_PER_ROW)
            return part.shard, part.row + row, place
    raise StorageError(f"{video.uri}: has no frame {index} in the prepared folder; {REMEDY}")


def _decode(content: bytes, shard: str, uri: str, index: int) -> np.ndarray:
    frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if frame is None:
        raise StorageError(f"{shard}: frame {index} of {uri} is damaged; {REMEDY}")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
