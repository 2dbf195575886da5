"""One video of a batch: what is to be done, what became of it, and the record of a finished one.

The record (`<output>.json`) is what a later run trusts: it states the fingerprint of input, mask,
model and settings that the output was made from, and the output's size.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights: `digest` (SHA-256 of the model's files) decides, the rest is for people."""

    source: str
    version: str
    digest: str

    def describe(self) -> str:
        """Source, and version where the source leaves it open."""
        return describe_model(self.source, self.version)


@dataclass(frozen=True)
class VideoTask:
    """One video to complete. URIs throughout; `mask` None: drawn from `mask_seed`."""

    name: str
    video: str
    output: str
    mask: str | None
    mask_seed: int
    sheet: str | None
    fingerprint: str
    identity: dict[str, Any] = field(default_factory=dict)
    """What the fingerprint was taken of, for the record."""

    @property
    def record(self) -> str:
        """URI of the JSON record beside the output."""
        return f"{self.output}.json"


@dataclass(frozen=True)
class VideoOutcome:
    """What became of one video: `status` done, review, skipped or failed; `reason` a slug.

    Scores are nan unless masks were drawn by seed (only then is the truth known).

    Attributes:
        quality: seam, warping and self_test as in `cssta.quality`; None where not measured.
        review: in words, why the video is held back; "" if it is not.
        segments: pieces that it was completed in.
        hole_frames: frames that had a hole.
    """

    name: str
    video: str
    output: str
    status: str
    reason: str = ""
    message: str = ""
    frames: int = 0
    height: int = 0
    width: int = 0
    seconds: float = 0.0
    hole_ratio: float = math.nan
    psnr: float = math.nan
    ssim: float = math.nan
    hole_psnr: float = math.nan
    sheet: str = ""
    quality: dict[str, float | None] = field(default_factory=dict)
    review: str = ""
    segments: int = 0
    hole_frames: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no nan: null instead."""
        values = asdict(self)
        return {key: None if value != value else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VideoOutcome:
        """Inverse of `to_dict`; TypeError on unknown or missing keys."""
        return cls(**{key: math.nan if value is None else value for key, value in values.items()})


def describe_model(source: str, version: str) -> str:
    """For people: a source, and the version it was resolved to where that says more."""
    return source if version == source else f"{source} (version {version})"


def digest(content: Any) -> str:
    """SHA-256 of plain content, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_record(content: bytes) -> dict[str, Any]:
    """A record's content; {} when it is damaged (then the video is simply done again)."""
    try:
        record = json.loads(content)
        return record | {"outcome": VideoOutcome.from_dict(record["outcome"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_record(task: VideoTask, model: ModelIdentity, outcome: VideoOutcome, size: int) -> str:
    """The record, as JSON, of a published output of `size` bytes."""
    content = {
        "fingerprint": task.fingerprint,
        "bytes": size,
        "identity": task.identity,
        "model": asdict(model),
        "outcome": outcome.to_dict(),
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
