"""Which videos of a bucket can be used: every one is opened before anything depends on it.

Files come from anywhere, and a damaged one can crash or hang a native decoder, or leave its process
broken for whatever is probed there next. So files are probed in Ray tasks, whose processes may die,
under a timer; a bad file is rejected by name, never fatal, and a good one never in its stead.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction

from cssta.video import VideoError, probe, read_frames
from pipelines import storage
from pipelines.retries import with_retries
from pipelines.storage import EmptyBucketError, StorageError, VideoFile
from pipelines.suspects import outlive
from pipelines.watchdog import Watchdog, end_process
from pipelines.worker_resources import check_memory

logger = logging.getLogger(__name__)

FILES_PER_TASK = 8
SECONDS_PER_FILE = 60.0
MEMORY_PER_TASK = 700 * 1024**2  # a decoder reads ahead that far in one 540p file


@dataclass(frozen=True)
class VideoRow:
    """A usable video."""

    uri: str
    frames: int
    height: int
    width: int
    fps: Fraction


@dataclass(frozen=True)
class Rejected:
    """A video left out; `reason` is a short slug such as "unreadable", `message` names the file."""

    uri: str
    reason: str
    message: str


@dataclass(frozen=True)
class Manifest:
    """The videos of a bucket, in the order of their names."""

    videos: Sequence[VideoRow]
    rejected: tuple[Rejected, ...] = ()
    digest: str = ""
    """Of the footage itself, where it has been taken (`content_digest`, of prepared frames, or of
    what pictures are called and how large they are)."""

    def describe(self) -> str:
        """One line for people: how many there are, and which were rejected why."""
        frames = sum(video.frames for video in self.videos)
        line = f"{len(self.videos)} videos, {frames} frames"
        if self.rejected:
            names = ", ".join(f"{storage.name(bad.uri)} ({bad.reason})" for bad in self.rejected)
            line += f"; {len(self.rejected)} rejected: {names}"
        return line


def build_manifest(
    uris: Sequence[str | VideoFile],
    s3_endpoint: str | None = None,
    *,
    seconds_per_file: float = SECONDS_PER_FILE,
) -> Manifest:
    """Probe videos on the cluster: header, first and last frame.

    Raises EmptyBucketError, naming the files, if none can be used, and StorageError where storage
    is away: without the videos there, training would be another. Raises ConfigError where no node
    has the memory.
    """
    check_memory(MEMORY_PER_TASK)
    names = [uri.uri if isinstance(uri, VideoFile) else uri for uri in uris]
    groups = [names[i : i + FILES_PER_TASK] for i in range(0, len(names), FILES_PER_TASK)]
    results: list[VideoRow | Rejected] = []
    arguments = (s3_endpoint, seconds_per_file)
    for found, uri in outlive(_probe_group, groups, *arguments, memory=MEMORY_PER_TASK):
        if uri is None:
            results.extend(found)
            continue
        message = (
            f"{uri}: the decoder crashed, ran out of memory or took over {seconds_per_file:g} s; "
            "re-encode it"
        )
        results.append(Rejected(uri, "crashed", message))
    return _manifest(results)


def probe_video(uri: str, s3_endpoint: str | None = None) -> VideoRow | Rejected:
    """Open one video and decode its first and last frame, in this process and without a timer.

    Raises StorageError where it cannot be said, as storage is away.
    """
    try:
        return _probe(uri, s3_endpoint)
    except StorageError:
        raise
    except Exception as error:  # whatever else a decoder raises: the file's fault, not the job's
        logger.warning("%s cannot be probed", uri, exc_info=True)
        return Rejected(uri, "unreadable", f"{uri}: {type(error).__name__}: {error}")


def _probe(uri: str, s3_endpoint: str | None) -> VideoRow | Rejected:
    """As `probe_video`, but raises what is neither the video's error nor the storage's."""
    try:
        with ExitStack() as stack:
            path = with_retries(
                lambda: stack.enter_context(storage.local_copy(uri, s3_endpoint=s3_endpoint))
            )
            info = probe(path)
            read_frames(path, sorted({0, info.frames - 1}))
    except VideoError as error:
        # (the path is that of a temporary copy where the URI is remote)
        return Rejected(uri, error.reason, str(error).replace(str(error.path), uri))
    except StorageError as error:
        if error.transient:
            raise
        return Rejected(uri, "storage", str(error))
    return VideoRow(uri, info.frames, info.height, info.width, info.fps)


def split(manifest: Manifest, fraction: float, seed: int) -> tuple[Manifest, Manifest]:
    """Training and validation videos: whole videos, drawn by seed and file name.

    At least one is held out if there are two or more and `fraction` > 0. A video keeps its side on
    another machine or under another folder; same-named videos are mostly drawn together.
    """
    count = round(fraction * len(manifest.videos))
    if fraction > 0 and len(manifest.videos) > 1:
        count = min(max(count, 1), len(manifest.videos) - 1)

    def draw(video: VideoRow) -> bytes:
        return hashlib.sha256(f"{seed}:{storage.name(video.uri)}".encode()).digest()

    held_out = set(sorted(manifest.videos, key=lambda video: (draw(video), video.uri))[:count])
    train = tuple(video for video in manifest.videos if video not in held_out)
    validation = tuple(video for video in manifest.videos if video in held_out)
    return Manifest(train), Manifest(validation)


def _probe_group(
    uris: list[str], s3_endpoint: str | None, seconds_per_file: float, in_new: bool
) -> list[VideoRow | Rejected]:
    """`in_new`: this process was started for these files, so that errors of any kind are theirs."""
    results = []
    for uri in uris:
        with _end_process_after(seconds_per_file):
            try:
                results.append(
                    probe_video(uri, s3_endpoint) if in_new else _probe(uri, s3_endpoint)
                )
            except StorageError:
                raise
            except Exception:  # memory that an earlier file's decoder overwrote raises anything
                logger.warning("%s is probed in another process", uri, exc_info=True)
                end_process()
    return results


@contextmanager
def _end_process_after(seconds: float) -> Iterator[None]:
    """End this process if the body takes longer; transfers, which have limits, do not count."""
    with Watchdog(seconds):
        yield


def _manifest(results: list[VideoRow | Rejected]) -> Manifest:
    ordered = sorted(results, key=lambda result: result.uri)
    videos = tuple(result for result in ordered if isinstance(result, VideoRow))
    rejected = tuple(result for result in ordered if isinstance(result, Rejected))
    for bad in rejected:
        logger.warning("rejected (%s): %s", bad.reason, bad.message)
    if not videos:
        messages = "; ".join(bad.message for bad in rejected[:5]) or "no files were given"
        raise EmptyBucketError(f"none of {len(rejected)} videos can be used: {messages}")
    return Manifest(videos, rejected)
