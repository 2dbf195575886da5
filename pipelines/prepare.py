"""Preparing a bucket that is read for many epochs: every frame decoded and scaled once.

Manifest, parts of shards, shards (one Ray task each), index. A shard is named by what is in it and
appears whole or not at all, so preparing again goes on where it stopped, and takes up what changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from cssta.video import VideoError, read_frames
from pipelines import storage
from pipelines.clip_loading import rejected_video
from pipelines.content_digest import glance
from pipelines.data_config import DataConfig
from pipelines.failures import CRASHED, check_failures, most_failures
from pipelines.footage import find_footage
from pipelines.manifest import Rejected, VideoRow
from pipelines.prepared import FRAMES_PER_ROW, REMEDY, Index, Part, PreparedVideo, write_index
from pipelines.retries import with_retries
from pipelines.storage import EmptyBucketError, StorageError
from pipelines.storage_errors import named
from pipelines.suspects import outlive
from pipelines.watchdog import Watchdog, end_process
from pipelines.worker_resources import check_memory

logger = logging.getLogger(__name__)

FRAMES_PER_SHARD = 2048  # about 100 MB at 256 x 456; a longer video is spread over several
FRAMES_AT_ONCE = 64  # in memory at the video's own size
SECONDS_AT_ONCE = 300.0  # for so many frames; transfers have limits of their own
MEMORY_PER_TASK = 1024**3
CONTENT = b"cssta.prepared"  # key of a shard's own table of contents, in its footer


@dataclass(frozen=True)
class Piece:
    """Frames `first` to `first + count - 1` of a video."""

    video: VideoRow
    first: int
    count: int


@dataclass(frozen=True)
class Shard:
    """A written shard: the parts of videos in it, the size of their frames, and what failed.

    `glances`: digests that tell the videos from others of the same name (`content_digest`).
    """

    name: str
    parts: tuple[tuple[str, Part], ...]
    sizes: dict[str, tuple[int, int]]
    failed: tuple[Rejected, ...] = ()
    glances: dict[str, str] = field(default_factory=dict)


def prepare(
    cfg: DataConfig, folder: str, quality: int = 95, say: Callable[[str], None] = print
) -> Index:
    """Write the videos that `cfg` names into `folder`, for clips of its height and width.

    Needs a connected Ray. Raises as `find_footage` does, EmptyBucketError if no video is left,
    TooManyFailuresError and StorageError. A video that fails is left out and named in the index.
    """
    manifest = find_footage(cfg)
    say(f"{cfg.videos}: {manifest.describe()}")
    files = len(manifest.videos) + len(manifest.rejected)
    limit = most_failures(cfg.max_failures, files)
    check_memory(MEMORY_PER_TASK)
    shards, failed = [], list(manifest.rejected)
    arguments = (cfg, folder, quality)
    packs = list(pack(manifest.videos))
    check_failures(failed, limit)
    for shard, piece in outlive(write_shard, packs, *arguments, memory=MEMORY_PER_TASK):
        if piece is not None:
            uri = piece.video.uri
            message = f"{uri}: the decoder crashed, hung or ran out of memory; re-encode it"
            failed.append(Rejected(uri, CRASHED, message))
            check_failures(failed, limit)
            continue
        shards.append(shard)
        failed += shard.failed
        check_failures(failed, limit)
        say(f"{shard.name}: {sum(part.count for _, part in shard.parts)} frames")
    index = _index(cfg, quality, manifest.videos, shards, failed)
    if not index.videos:
        raise EmptyBucketError(f"{cfg.videos}: no video could be prepared: {failed[0].message}")
    write_index(index, folder, cfg.s3_endpoint)
    return index


def pack(videos: Sequence[VideoRow], most: int = FRAMES_PER_SHARD) -> Iterator[list[Piece]]:
    """The videos' frames, in order, in packs of up to `most` frames."""
    held: list[Piece] = []
    room = most
    for video in videos:
        first = 0
        while first < video.frames:
            # A video goes on in the next shard only if it is longer than one.
            if held and room < min(video.frames - first, most):
                yield held
                held, room = [], most
            count = min(video.frames - first, room)
            held.append(Piece(video, first, count))
            first, room = first + count, room - count
    if held:
        yield held


def write_shard(
    pieces: Sequence[Piece], cfg: DataConfig, folder: str, quality: int, in_new: bool
) -> Shard:
    """Decode, scale, encode and publish; or tell what is there already. Raises StorageError.

    `in_new`: this process was started for these pieces, so that errors of any kind are theirs.
    """
    cv2.setNumThreads(1)
    uris = dict.fromkeys(piece.video.uri for piece in pieces)
    glances = {uri: _glance(uri, cfg.s3_endpoint) for uri in uris}
    name = f"shard-{shard_digest(pieces, cfg, quality, glances)}.parquet"
    uri = storage.join(folder, name)
    if with_retries(lambda: storage.exists(uri, cfg.s3_endpoint)):
        return _contents(name, uri, cfg.s3_endpoint)
    parts: list[tuple[str, Part]] = []
    sizes: dict[str, tuple[int, int]] = {}
    failed: list[Rejected] = []
    schema = pa.schema({"uri": pa.string(), "first": pa.int64(), "frames": pa.list_(pa.binary())})
    with tempfile.TemporaryDirectory(prefix="cssta-") as scratch:
        local = Path(scratch) / name
        # (JPEG does not compress further, and plain pages are read fastest)
        with parquet.ParquetWriter(
            local, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            row = 0
            for piece in pieces:
                part = Part(name, row, piece.first, piece.count)
                try:
                    for first, frames, size in _encoded(piece, cfg, quality):
                        rows = {"uri": [piece.video.uri], "first": [first], "frames": [frames]}
                        writer.write_table(pa.table(rows, schema), row_group_size=1)
                        row += 1
                        sizes[piece.video.uri] = size
                except Exception as error:  # the file's fault; what was written of it is not used
                    if getattr(error, "transient", False):
                        raise  # the storage's, which may be well again next time
                    if not in_new and not isinstance(error, (VideoError, StorageError)):
                        # (An earlier file's decoder may have overwritten this process's memory.)
                        logger.warning("%s: taken to another process", piece.video, exc_info=True)
                        end_process()
                    failed.append(rejected_video(piece.video.uri, error))
                else:
                    parts.append((piece.video.uri, part))
            shard = Shard(name, tuple(parts), sizes, tuple(failed), glances)
            writer.add_key_value_metadata({CONTENT: json.dumps(asdict(shard))})
        with_retries(lambda: storage.publish(local, uri, cfg.s3_endpoint))
    return shard


def _glance(uri: str, s3_endpoint: str | None) -> str:
    """ "" of what cannot be read, as will be told when it is decoded. Raises StorageError."""
    try:
        return with_retries(lambda: glance(uri, s3_endpoint))
    except StorageError as error:
        if error.transient:
            raise
        return ""


def shard_digest(
    pieces: Sequence[Piece], cfg: DataConfig, quality: int, glances: dict[str, str]
) -> str:
    """Sixteen hex digits over what decides a shard's content."""
    decisive = [cfg.height, cfg.width, quality, FRAMES_PER_ROW]
    for p in pieces:
        decisive.append([p.video.uri, glances[p.video.uri], p.video.frames, p.first, p.count])
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _encoded(
    piece: Piece, cfg: DataConfig, quality: int
) -> Iterator[tuple[int, list[bytes], tuple[int, int]]]:
    """First frame's number, JPEGs and their (height, width), FRAMES_PER_ROW frames at a time."""
    with ExitStack() as stack:
        uri, endpoint = piece.video.uri, cfg.s3_endpoint
        path = with_retries(
            lambda: stack.enter_context(storage.local_copy(uri, s3_endpoint=endpoint))
        )
        # (Nothing else stops a decoder in an endless loop.)
        watchdog = stack.enter_context(Watchdog(SECONDS_AT_ONCE))
        end = piece.first + piece.count
        for start in range(piece.first, end, FRAMES_AT_ONCE):
            frames = read_frames(path, range(start, min(start + FRAMES_AT_ONCE, end)))
            height, width = cover_size(*frames.shape[1:3], cfg.height, cfg.width)
            for first in range(0, len(frames), FRAMES_PER_ROW):
                some = frames[first : first + FRAMES_PER_ROW]
                jpegs = [_jpeg(frame, height, width, quality) for frame in some]
                yield start + first, jpegs, (height, width)
            watchdog.feed()


def cover_size(height: int, width: int, least_height: int, least_width: int) -> tuple[int, int]:
    """The size to which a frame is scaled so that it just covers the least one; never larger."""
    scale = min(max(least_height / height, least_width / width), 1.0)
    return max(math.ceil(height * scale - 1e-6), 1), max(math.ceil(width * scale - 1e-6), 1)


def _jpeg(frame: np.ndarray, height: int, width: int, quality: int) -> bytes:
    if frame.shape[:2] != (height, width):
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _contents(name: str, uri: str, s3_endpoint: str | None) -> Shard:
    def read() -> dict:
        system, path = storage.filesystem(uri, s3_endpoint)
        with named(uri, REMEDY), system.open_input_file(path) as file:
            return json.loads(parquet.ParquetFile(file).metadata.metadata[CONTENT])

    found = with_retries(read)
    return Shard(
        name,
        tuple((video, Part(**part)) for video, part in found["parts"]),
        {video: tuple(size) for video, size in found["sizes"].items()},
        tuple(Rejected(**bad) for bad in found["failed"]),
        found["glances"],
    )


def _index(
    cfg: DataConfig,
    quality: int,
    videos: Sequence[VideoRow],
    shards: Sequence[Shard],
    failed: Sequence[Rejected],
) -> Index:
    parts: dict[str, list[Part]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    glances: dict[str, set[str]] = {}
    for shard in shards:
        sizes |= shard.sizes
        for uri, found in shard.glances.items():
            glances.setdefault(uri, set()).add(found)
        for uri, part in shard.parts:
            parts.setdefault(uri, []).append(part)
    message = "changed while it was prepared; prepare it again"
    changed = [uri for uri, found in glances.items() if len(found) > 1]
    failed = [*failed, *(Rejected(uri, "changed", f"{uri}: {message}") for uri in changed)]
    bad = {one.uri for one in failed}
    kept = [
        PreparedVideo(
            video.uri,
            video.frames,
            str(video.fps),
            *sizes[video.uri],
            tuple(sorted(parts[video.uri], key=lambda part: part.first)),
            *glances[video.uri],
        )
        for video in videos
        if video.uri not in bad
    ]
    content = [[asdict(video) for video in kept], cfg.height, cfg.width, quality]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    rejected = tuple(sorted({one.uri: one for one in failed}.values(), key=lambda one: one.uri))
    return Index(cfg.height, cfg.width, quality, digest, tuple(kept), rejected)
