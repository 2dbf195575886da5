"""The configuration of batch inference."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipelines.batch_options import VideoOptions
from pipelines.config_types import Location, Section
from pipelines.mask_rules import MaskRule


class QualityLimits(Section):
    """Figures of `cssta.quality` beyond which a video is held back for review; None: no limit.

    By default `cssta.quality.BROKEN`; stricter ones are `LIMITS` there. (To import them would load
    PyTorch.)
    """

    seam: PositiveFloat | None = 3.0
    """Highest seam energy around the hole."""
    warping: PositiveFloat | None = 3.0
    """Highest warping error in the hole over that of its ring."""
    self_test: float | None = None
    """Lowest PSNR, in dB, of a drawn hole where the truth is known."""

    def given(self) -> dict[str, float]:
        """Those that there are, by figure."""
        return {key: limit for key, limit in self.model_dump().items() if limit is not None}


class InferenceConfig(Section):
    """Batch inference from a bucket to another."""

    videos: Location | None = None
    masks: MaskRule | None = None
    """Folder with `<stem>.mp4`, `<stem>.png` or a frame folder `<stem>/`; one file for all; a
    pattern such as `s3://bucket/masks/{stem}_mask.png`; or `box:x,y,w,h@t0-t1` (see
    `pipelines.mask_rules`). None: free-form masks drawn by seed, so that the truth behind each hole
    is known."""
    output: Location | None = None
    manifest: Location | None = None
    """CSV, JSON lines or Parquet with columns video, mask, output and options, one row a video."""
    options: VideoOptions = VideoOptions()
    """Of all videos; a manifest's row may change them for its own."""
    actors: PositiveInt = 1
    """Processes that hold the model, at most."""
    min_actors: PositiveInt | None = None
    """At least; None: always as many as `actors`."""
    cpus_per_actor: PositiveFloat = 1
    gpus_per_actor: Annotated[float, Field(gt=0, le=64)] | None = None
    """A share of one GPU, or several; None: one where `cluster.use_gpu` gives GPUs."""
    segment_frames: PositiveInt = 240
    """Frames after which, at most, work is safe from being stopped."""
    assemblers: PositiveInt | None = None
    """Finished videos that are joined, verified and published at the same time; None: half as many
    as there are actors, at least two."""
    cache_gb: PositiveFloat = 50
    """Of copies of remote videos, on each node."""
    scratch: str | None = None
    """Folder on every node for temporary files; None: the system's."""
    stall_seconds: PositiveFloat = 900
    """A process that has not finished a frame for so long is taken to hang and is replaced."""
    quality: bool = True
    """Measure seams and warping of every video."""
    self_test_frames: Annotated[int, Field(ge=0, le=64)] = 4
    """Frames of each video's test: its hole is made a second time where the truth is known. Costs
    as much as completing so many frames more of each video; 0: none."""
    limits: QualityLimits = QualityLimits()
    sheets: NonNegativeInt = 4
    """Contact sheets, of the worst videos."""
    verify: bool = False
    """Read all that is published again, instead of trusting its size and time."""
    price_per_hour: NonNegativeFloat | None = None
    """Of one worker, in any currency: what `--dry-run` reckons costs by."""

    @model_validator(mode="after")
    def _both_ends(self) -> InferenceConfig:
        inputs = self.videos if self.manifest is None else self.manifest
        for given, missing, key in (
            (inputs, self.output, "videos"),
            (self.output, inputs, "output"),
        ):
            if given is not None and missing is None:
                other = "output" if key == "videos" else "videos"
                raise ValueError(
                    f"inference.{key} is given without inference.{other}; give both, or "
                    "neither where no videos are to be completed"
                )
        if self.min_actors is not None and self.min_actors > self.actors:
            raise ValueError(
                f"min_actors {self.min_actors} is above actors {self.actors}; raise actors"
            )
        if self.limits.self_test is not None and not self.self_test_frames:
            raise ValueError(
                "limits.self_test is given with self_test_frames 0, so that nothing would be "
                "tested; leave self_test_frames at its default, or set it"
            )
        return self
