"""A batch in numbers: what its summary line, its page and its MLflow run all tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cssta.quality import FIGURES, LIMITS
from pipelines.batch_record import STATUSES, VideoOutcome


@dataclass(frozen=True)
class Totals:
    """Sums over a batch.

    Attributes:
        videos: by status; those held for review since an earlier run count as review.
        frames: of the videos finished in this run, those without a hole among them. (What an
            earlier run had staged of a video counts with it.)
        hole_frames: of these, those that had one.
        seconds: what the run took, by the clock.
        failures: videos by reason, the most frequent first.
        quality: values of each figure, as measured in this run or in the one that made the video.
    """

    videos: dict[str, int]
    frames: int
    hole_frames: int
    seconds: float
    failures: dict[str, int]
    quality: dict[str, list[float]]

    @classmethod
    def of(cls, outcomes: Sequence[VideoOutcome], seconds: float) -> Totals:
        """Of all videos of a batch that took so long."""
        counted = Counter(outcome.standing for outcome in outcomes)
        fresh = [outcome for outcome in outcomes if outcome.status in ("done", "review")]
        reasons = Counter(outcome.reason for outcome in outcomes if outcome.status == "failed")
        return cls(
            videos={status: counted[status] for status in STATUSES},
            frames=sum(outcome.frames for outcome in fresh),
            hole_frames=sum(outcome.hole_frames for outcome in fresh),
            seconds=seconds,
            failures=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            quality={key: _values(outcomes, key) for key in FIGURES},
        )

    @property
    def rate(self) -> float:
        """Frames per second of the whole run; 0 where nothing was completed."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """Flat, for MLflow: counts, rate, and each figure's median and worst value."""
        found = {f"videos_{status}": float(count) for status, count in self.videos.items()}
        found |= {f"failed_{reason or 'other'}": float(n) for reason, n in self.failures.items()}
        found |= {
            "frames": float(self.frames),
            "hole_frames": float(self.hole_frames),
            "seconds": float(self.seconds),
            "frames_per_second": self.rate,
        }
        for key, values in self.quality.items():
            if values:
                found[f"{key}_median"] = float(np.median(values))
                found[f"{key}_worst"] = min(values) if key == "self_test" else max(values)
        return found


def severity(outcome: VideoOutcome, limits: Mapping[str, float | None] = LIMITS) -> float:
    """How bad its worst figure is, 1 being the limit; 0 where nothing was measured."""
    found = [0.0]
    for key, limit in limits.items():
        value = outcome.quality.get(key)
        if value is None or limit is None or not math.isfinite(value):
            continue
        found.append(limit / max(value, 1e-3) if key == "self_test" else value / limit)
    return max(found)


def worst_of(
    outcomes: Sequence[VideoOutcome], count: int, limits: Mapping[str, float | None] = LIMITS
) -> list[VideoOutcome]:
    """The completed videos that look worst, the worst first: those to be looked at by eye."""
    measured = [o for o in outcomes if o.status != "failed" and severity(o, limits) > 0]
    return sorted(measured, key=lambda o: (-severity(o, limits), o.name))[:count]


def _values(outcomes: Sequence[VideoOutcome], key: str) -> list[float]:
    values = [outcome.quality.get(key) for outcome in outcomes if outcome.status != "failed"]
    return [value for value in values if value is not None and math.isfinite(value)]
