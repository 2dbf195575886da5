"""Which clips a stage is trained on: a pure function of videos, configuration and seed.

Clips are numbered through all epochs, and every epoch is drawn afresh from (seed, epoch): a
restarted job meets the clips that it would have met, and how many workers share them changes
nothing but who takes which.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines import storage
from pipelines.data_config import DataConfig
from pipelines.manifest import Manifest, VideoRow

CLIPS_PER_OPEN = 4  # clips cut from a video while it is open
VISITS_AT_ONCE = 16
"""Videos whose clips take turns. A batch of up to so many clips shows as many videos."""
SUBSTITUTES = 20  # videos that are tried in the place of one that fails


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
    uses = np.bincount(np.concatenate(rounds)[:clips] if rounds else [], minlength=count)
    visits = [  # (of millions of pictures only those that the epoch needs are looked up)
        (manifest.videos[index], min(CLIPS_PER_OPEN, int(uses[index]) - start))
        for index in np.flatnonzero(uses).tolist()
        for start in range(0, int(uses[index]), CLIPS_PER_OPEN)
    ]
    stems = [storage.stem(one) for one in objects]  # (taken once: a path costs microseconds)
    same = Counter(stems)
    rows: list[ClipRow] = []
    for video in _in_turns([visits[visit] for visit in rng.permutation(len(visits))]):
        rows.append(
            ClipRow(
                number=epoch * clips + len(rows),
                uri=video.uri,
                indices=_draw_indices(rng, video.frames, cfg.references + 1, cfg.max_stride),
                flip=bool(cfg.flip and rng.random() < 0.5),
                crop_y=float(rng.random()),
                crop_x=float(rng.random()),
                mask_seed=int(rng.integers(2**62)),
                objects=_draw_objects(rng, cfg.masks.kind, video.uri, objects, stems, same),
            )
        )
    return rows


def substitutes(row: ClipRow, videos: Sequence[VideoRow], cfg: DataConfig) -> Iterator[ClipRow]:
    """Clips of other videos, at most SUBSTITUTES, to take the place of one whose file fails.

    Drawn from the clip's own seed: whoever meets the failure, and whenever, takes the same one.
    """
    rng = np.random.default_rng([row.mask_seed, 1])
    for index in rng.permutation(len(videos))[: SUBSTITUTES + 1]:
        video = videos[index]
        indices = _draw_indices(rng, video.frames, len(row.indices), cfg.max_stride)
        if video.uri != row.uri:
            yield replace(row, uri=video.uri, indices=indices)


def _in_turns(visits: Sequence[tuple[VideoRow, int]]) -> Iterator[VideoRow]:
    """Every visit's video as often as it says; VISITS_AT_ONCE visits take turns."""
    for first in range(0, len(visits), VISITS_AT_ONCE):
        together = visits[first : first + VISITS_AT_ONCE]
        # The short ones last: the others then come again after the same number of clips.
        together = sorted(together, key=lambda visit: -visit[1])
        for turn in range(CLIPS_PER_OPEN):
            yield from (video for video, times in together if turn < times)


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
    rng: np.random.Generator,
    kind: str,
    uri: str,
    objects: Sequence[str],
    stems: Sequence[str],
    same: Counter[str],
) -> str | None:
    """`stems`: of `objects`; `same`: how many of these there are of each."""
    if kind == "freeform" or (kind == "mixed" and rng.random() < 0.5):
        return None
    own, place = storage.stem(uri), int(rng.integers(len(objects)))
    # Its own object's mask would hide what nothing shows the truth of.
    while stems[place] == own and same[own] < len(objects):
        place = int(rng.integers(len(objects)))
    return objects[place]


@dataclass(frozen=True)
class ClipPlan:
    """All clips of a stage, of whatever length; `objects` as for `plan_clips`."""

    manifest: Manifest
    cfg: DataConfig
    seed: int
    objects: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """About the bytes that the plan takes in an object store: of pictures' names, if any."""
        return getattr(self.manifest.videos, "nbytes", 0)

    def epoch(self, number: int) -> list[ClipRow]:
        """One epoch's clips. Raises as `plan_clips` does."""
        return plan_clips(self.manifest, self.cfg, self.seed, number, objects=self.objects)

    def rows(self, start: int, stop: int) -> list[ClipRow]:
        """Clips number `start` to `stop` - 1."""
        per_epoch = self.cfg.clips_per_epoch
        return [
            row
            for number in range(start // per_epoch, math.ceil(stop / per_epoch))
            for row in self.epoch(number)
            if start <= row.number < stop
        ]

    def spans(self, start: int, stop: int, whole: int = 1) -> list[tuple[int, int]]:
        """`start` to `stop` in parts of about CLIPS_PER_OPEN * VISITS_AT_ONCE, for a task each.

        A part ends where visits end, and with its epoch, or as soon after that as it is a multiple
        of `whole` clips.
        """
        per_epoch, origin = self.cfg.clips_per_epoch, start
        length = CLIPS_PER_OPEN * VISITS_AT_ONCE
        ends = []
        while start < stop:
            place = start % per_epoch
            end = start - place + min((place // length + 1) * length, per_epoch)
            end = min(origin + math.ceil((end - origin) / whole) * whole, stop)
            ends.append((start, end))
            start = end
        return ends


@dataclass(frozen=True)
class Deal:
    """In which order one stream gives the clips of every step to the workers, a few at a time.

    Step s has clips s * G to (s + 1) * G - 1, G being `workers * batch_size`, of which worker r is
    given the r-th `batch_size`. The stream goes round the workers, `hand` clips for each.
    """

    workers: int = 1
    batch_size: int = 1
    hand: int = 1
    """Divides the batch size."""

    def number(self, place: int) -> int:
        """The clip at a place of the stream; both count from the first step's first clip."""
        step, rest = divmod(place, self.workers * self.batch_size)
        turn, rest = divmod(rest, self.workers * self.hand)
        rank, rest = divmod(rest, self.hand)
        return (step * self.workers + rank) * self.batch_size + turn * self.hand + rest
