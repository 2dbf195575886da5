"""A task's video, masks and encoding, opened: the same in every process that works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cssta.video import Encoding, MaskSource, VideoSource, choose_encoding, open_masks, open_source
from pipelines.batch_masks import Stamp
from pipelines.batch_options import VideoOptions
from pipelines.batch_record import ModelIdentity, VideoTask, digest
from pipelines.drawn_masks import DrawnMasks
from pipelines.node_cache import NodeCache, claim_scratch


@dataclass(frozen=True)
class BatchSettings:
    """What all videos of a batch share, wherever they are worked on.

    Attributes:
        scratch: folder on every node for temporary files and copies of remote videos.
        cache_bytes: of those copies.
        ratio: range of the hole's share where masks are drawn.
        limits: see `cssta.quality.judge`.
        stall_seconds: after which a process without progress is taken to hang.
        lease: token of the driver's lease, without which nothing is published; "": there is none.
    """

    model: ModelIdentity
    ratio: tuple[float, float]
    scratch: str
    s3_endpoint: str | None = None
    cache_bytes: float = 50e9
    segment_frames: int = 240
    quality: bool = True
    self_test_frames: int = 0
    limits: tuple[tuple[str, float], ...] = ()
    stall_seconds: float = 900.0
    lease: str = ""

    def claim_scratch(self) -> Path:
        """The folder, made on this node."""
        return claim_scratch(Path(self.scratch))

    def cache(self) -> NodeCache:
        """This node's copies of remote videos."""
        return NodeCache(self.claim_scratch() / "cache", self.cache_bytes, self.s3_endpoint)


@dataclass(frozen=True)
class Opened:
    """A task's video and masks, and how its segments are encoded."""

    source: VideoSource
    masks: MaskSource | DrawnMasks
    encoding: Encoding
    options: VideoOptions


@contextmanager
def opened(
    task: VideoTask, settings: BatchSettings, progress: Callable[[], None] = lambda: None
) -> Iterator[Opened]:
    """Open a task's inputs; `progress` as in `open_source`. Raises VideoError or StorageError."""
    cache, options = settings.cache(), VideoOptions(**task.options)
    with cache.open(task.video, _stamp(task.identity.get("input"))) as video:
        source = open_source(video, options.fps, progress)
        # (The output's ending chooses the container.)
        name = PurePosixPath(task.place).name
        encoding = choose_encoding(source.info, Path(name), **options.encoding())
        if task.mask is None:
            masks = _masks(task, source, None, settings, options, progress)
            yield Opened(source, masks, encoding, options)
            return
        with cache.open(task.mask, _stamp(task.identity.get("mask"))) as mask:
            masks = _masks(task, source, mask, settings, options, progress)
            yield Opened(source, masks, encoding, options)


def _masks(
    task: VideoTask,
    source: VideoSource,
    path: Path | None,
    settings: BatchSettings,
    options: VideoOptions,
    progress: Callable[[], None],
) -> MaskSource | DrawnMasks:
    spec = options.mask_spec(path)
    if spec is not None:
        return open_masks(spec, source, progress)
    info = source.info
    return DrawnMasks(task.mask_seed, info.frames, info.height, info.width, settings.ratio)


def _stamp(stamp: Stamp | None) -> str:
    return digest(stamp or {})


def is_drawn(task: VideoTask) -> bool:
    """Whether the masks are drawn, so that what they hide is known."""
    return task.mask is None and VideoOptions(**task.options).mask_spec(None) is None
