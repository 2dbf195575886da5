"""Which clips an epoch consists of: a pure function of videos, configuration, seed and epoch.

Drawn afresh from (seed, epoch), not from a generator's state, so that a restarted job meets the
clips that it would have met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines import storage
from pipelines.config import DataConfig
from pipelines.manifest import Manifest

CLIPS_PER_OPEN = 4  # clips cut from a video while it is open


@dataclass(frozen=True)
class ClipRow:
    """What one clip is made of. `number` counts clips over all epochs, in the stream's order."""

    number: int
    uri: str
    indices: tuple[int, ...]
    """Frames of the video in playing order, `references + 1` of them."""
    flip: bool
    crop_y: float
    crop_x: float
    """Place of the crop between the top or left end (0) and the bottom or right one (1)."""
    mask_seed: int
    objects: str | None
    """Mask sequence of another video; None: the masks are free-form."""


def plan_clips(
    manifest: Manifest,
    cfg: DataConfig,
    seed: int,
    epoch: int,
    *,
    clips: int | None = None,
    objects: Sequence[str] = (),
) -> list[ClipRow]:
    """The clips of one epoch in their order; `clips` of them (default: cfg.clips_per_epoch).

    Every video is used equally often, give or take one, whatever its length. `objects`: the mask
    sequences to draw from (see `object_sequences`). Raises ValueError without videos, or without
    objects where the configuration asks for them.
    """
    if not manifest.videos:
        raise ValueError("no videos to cut clips from")
    if cfg.masks.kind != "freeform" and not objects:
        raise ValueError(f"masks of kind {cfg.masks.kind} need mask sequences")
    clips = cfg.clips_per_epoch if clips is None else clips
    rng = np.random.default_rng([seed, epoch])
    count = len(manifest.videos)
    rounds = [rng.permutation(count) for _ in range(math.ceil(clips / count))]
    uses = np.bincount(np.concatenate(rounds)[:clips], minlength=count) if rounds else []
    visits = [
        (video, min(CLIPS_PER_OPEN, times - start))
        for video, times in zip(manifest.videos, uses, strict=False)
        for start in range(0, times, CLIPS_PER_OPEN)
    ]
    rows: list[ClipRow] = []
    for visit in rng.permutation(len(visits)):
        video, times = visits[visit]
        for _ in range(times):
            rows.append(
                ClipRow(
                    number=epoch * clips + len(rows),
                    uri=video.uri,
                    indices=_draw_indices(rng, video.frames, cfg.references + 1, cfg.max_stride),
                    flip=bool(cfg.flip and rng.random() < 0.5),
                    crop_y=float(rng.random()),
                    crop_x=float(rng.random()),
                    mask_seed=int(rng.integers(2**62)),
                    objects=_draw_objects(rng, cfg.masks.kind, video.uri, objects),
                )
            )
    return rows


def _draw_indices(
    rng: np.random.Generator, frames: int, length: int, max_stride: int
) -> tuple[int, ...]:
    """Evenly spaced frames; where the video is too short it is played back and forth."""
    longest = (frames - 1) // max(length - 1, 1)
    stride = int(rng.integers(1, min(max_stride, max(longest, 1)) + 1))
    start = int(rng.integers(max(frames - stride * (length - 1), 1)))
    period = max(2 * (frames - 1), 1)
    steps = ((start + stride * i) % period for i in range(length))
    return tuple(min(step, 2 * (frames - 1) - step) for step in steps)


def _draw_objects(
    rng: np.random.Generator, kind: str, uri: str, objects: Sequence[str]
) -> str | None:
    if kind == "freeform" or (kind == "mixed" and rng.random() < 0.5):
        return None
    # Its own object's mask would hide what nothing shows the truth of.
    others = [one for one in objects if storage.stem(one) != storage.stem(uri)] or list(objects)
    return others[rng.integers(len(others))]


def object_sequences(cfg: DataConfig) -> list[str]:
    """The mask sequences that the configuration names; none for free-form masks."""
    if cfg.masks.kind == "freeform" or cfg.masks.objects is None:
        return []
    return storage.list_picture_folders(cfg.masks.objects, cfg.s3_endpoint)
