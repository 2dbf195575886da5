"""One video of a batch: what is to be done, what became of it, and the record of a finished one.

The record (`<output>.json`) is what a later run trusts: it states the fingerprint of input, mask,
model and settings that the output was made from, and the output's size, time and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cssta import __version__
from pipelines.batch_names import OUTDATED, REVIEW, SHEETS, WORK
from pipelines.storage import join

FINISHED = ("done", "review")
STATUSES = (*FINISHED, "skipped", "failed")


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
    """One video to complete.

    Attributes:
        name: relative to the batch's input, or as its manifest says; unique in the batch.
        video: URI of a file or frame folder.
        root, place: URI of the batch's output, and this video's output relative to it.
        mask: URI; None: boxes or alpha of the options, else drawn from `mask_seed`.
        options: values of `VideoOptions`.
        size: bytes of the input, as far as known; what work is shared out by.
        identity: what the fingerprint was taken of, for the record.
        measures: `quality` and `self_test_frames` of the configuration. They change no output, but
            segments staged without figures are of no use where there are to be some.
    """

    name: str
    video: str
    root: str
    place: str
    mask: str | None
    mask_seed: int
    fingerprint: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> tuple[str, ...]:
        """Those of `cssta.quality` that are measured."""
        seen = ("seam", "warping") if self.measures.get("quality") else ()
        return (*seen, "self_test") if self.measures.get("self_test_frames") else seen

    @property
    def output(self) -> str:
        """URI of the completed video."""
        return join(self.root, self.place)

    @property
    def review(self) -> str:
        """URI of the completed video when it is held back."""
        return join(self.root, REVIEW, self.place)

    @property
    def outdated(self) -> str:
        """URI of an earlier output whose successor is held back."""
        return join(self.root, OUTDATED, self.place)

    @property
    def sheet(self) -> str:
        """URI of the contact sheet, if one is drawn."""
        return join(self.root, SHEETS, f"{self.place}.png")

    @property
    def work(self) -> str:
        """URI of the folder for all unfinished work on this output, of whatever input."""
        return join(self.root, WORK, hashlib.sha256(self.place.encode()).hexdigest()[:20])

    @property
    def staging(self) -> str:
        """URI of the folder for finished segments of exactly this work."""
        return join(self.work, digest([self.fingerprint, __version__, self.measures])[:20])


def record_of(output: str) -> str:
    """URI of the JSON record beside an output."""
    return f"{output}.json"


@dataclass(frozen=True)
class VideoOutcome:
    """What became of one video: `status` done, review, skipped or failed; `reason` a slug.

    Scores are nan unless masks were drawn by seed (only then is the truth known).

    Attributes:
        seconds: of work on it, on however many processes.
        quality: seam, warping and self_test as in `cssta.quality`, those that were measured; None
            where there was nothing to measure (no hole, or no room for another).
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

    @property
    def standing(self) -> str:
        """`status`, but review also for what an earlier run held, and this one left so."""
        return "review" if self.status == "skipped" and self.review else self.status

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no nan: null instead."""
        values = asdict(self)
        return {key: None if value != value else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VideoOutcome:
        """Inverse of `to_dict`; TypeError on unknown or missing keys."""
        return cls(**{key: math.nan if value is None else value for key, value in values.items()})


def failure(task: VideoTask, reason: str, message: str) -> VideoOutcome:
    """The outcome of a video that could not be completed."""
    message = " ".join(message.split())
    return VideoOutcome(task.name, task.video, task.output, "failed", reason, message)


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


@dataclass(frozen=True)
class Published:
    """A file as it was when it was put in its place; `modified` in ns, as its storage says."""

    bytes: int
    modified: int
    sha256: str


def write_record(
    task: VideoTask, model: ModelIdentity, outcome: VideoOutcome, file: Published
) -> str:
    """The record, as JSON, of a published output."""
    content = {
        "fingerprint": task.fingerprint,
        **asdict(file),
        "identity": task.identity,
        "config": digest(task.identity.get("settings", {})),
        "software": f"cssta {__version__}",
        "model": asdict(model),
        "outcome": outcome.to_dict(),
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False)


def task_from_json(text: str) -> VideoTask:
    """Inverse of `json.dumps(vars(task))`."""
    known = {field.name for field in fields(VideoTask)}
    return VideoTask(**{key: value for key, value in json.loads(text).items() if key in known})
