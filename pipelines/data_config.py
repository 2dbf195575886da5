"""The configuration's section on data: which videos, how clips are cut, how holes are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from pipelines.config_types import Location, Section, ascending

Share = Annotated[float, Field(gt=0, lt=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(ascending)]
FrameSide = Annotated[int, Field(ge=16, le=4096, multiple_of=8)]


class MasksConfig(Section):
    """How hole masks are made: drawn free-form, object masks of other videos, or half and half."""

    kind: Literal["freeform", "objects", "mixed"] = "freeform"
    ratio: ShareRange = (0.05, 0.35)
    """Range of the hole's share of a free-form clip."""
    buckets: tuple[ShareRange, ...] = ()
    """Such ranges for training, each as often as any other; none: `ratio` is the only one."""
    moving: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the free-form clips whose holes drift and deform; the others' hold still."""
    objects: Location | None = None
    """Folder with a sub-folder of mask pictures per sequence; None: the data set's annotations."""


class DataConfig(Section):
    """Where the training videos are and how clips are cut from them."""

    videos: Location
    layout: Literal["auto", "videos", "davis", "youtube-vos"] = "auto"
    """How `videos` is laid out; auto: see whether there is a JPEGImages folder."""
    images: Location | None = None
    """Pictures that IM2IM learns from instead, as from Places2: a camera moves over each."""
    prepared: Location | None = None
    """Folder that jobs/prepare.py wrote from the videos; their frames are then read from there."""
    height: FrameSide = 256
    width: FrameSide = 256
    references: PositiveInt = 6
    """Reference frames beside the target; a clip has `references + 1` frames."""
    clips_per_epoch: PositiveInt = 256
    max_stride: PositiveInt = 5
    """Frame spacing within a clip, drawn between 1 and this."""
    flip: bool = True
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of whole videos held out: at least one if there are two or more, none if 0."""
    max_failures: NonNegativeInt | Share | None = 0.5
    """Files that may be bad before the job stops: a number, a share of the files, or no limit.
    Videos, pictures and mask sequences are counted apart."""
    masks: MasksConfig = MasksConfig()
    s3_endpoint: str | None = None
    """Address of an S3 server other than AWS, such as http://localhost:9000."""

    @model_validator(mode="after")
    def _objects_where_needed(self) -> DataConfig:
        annotated = self.layout in ("davis", "youtube-vos")
        if self.masks.kind != "freeform" and self.masks.objects is None and not annotated:
            raise ValueError(
                f"data.masks of kind {self.masks.kind} needs objects: a folder of mask sequences; "
                "or data.layout davis or youtube-vos, whose annotations will do"
            )
        return self
