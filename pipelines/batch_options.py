"""What can be said about a single video of a batch, for all of them or by its row in a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cssta.video import Box, MaskSpec


class VideoOptions(BaseModel):
    """As the options of `cssta inpaint`; see `cssta.video.MaskSpec` and `choose_encoding`.

    Attributes:
        boxes: rectangular holes "x,y,w,h@t0-t1", separated by semicolons.
        alpha: holes are where the video itself is transparent.
        threshold, dilate, invert, hold_last: how mask files are read.
        feather: pixels over which the result fades in, from the hole's edge inwards.
        codec, crf, pix_fmt, lossless: instead of what matches the source.
        accept_loss: warn of what cannot be kept of the source, instead of refusing the video.
        scene_cuts: look for cuts; no frame then borrows from another scene.
        fps: rate of frame folders; files have their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    boxes: str = ""
    alpha: bool = False
    threshold: Annotated[int, Field(ge=0, le=254)] | None = None
    dilate: Annotated[int, Field(ge=0, le=1000)] = 0
    invert: bool = False
    hold_last: bool = False
    feather: Annotated[int, Field(ge=0, le=1000)] = 0
    codec: str | None = None
    crf: Annotated[float, Field(ge=0, le=63)] | None = None
    pix_fmt: str | None = None
    lossless: bool = False
    accept_loss: bool = False
    scene_cuts: bool = True
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None

    @field_validator("boxes")
    @classmethod
    def _boxes_can_be_read(cls, text: str) -> str:
        parse_boxes(text)
        return text

    def changed_by(self, row: dict[str, Any]) -> VideoOptions:
        """These options with those that a manifest's row gives; text is read as what is meant.

        Raises ValueError, naming the column.
        """
        given = {key: value for key, value in row.items() if value is not None and value != ""}
        texts = {key: str(value) for key, value in given.items()}
        try:
            changed = type(self).model_validate_strings(texts)
        except ValidationError as error:
            problem = error.errors()[0]
            key = problem["loc"][0] if problem["loc"] else "row"
            if problem["type"] == "extra_forbidden":
                allowed = ", ".join(["video", "mask", "output", *type(self).model_fields])
                raise ValueError(f"unknown column {key}; allowed: {allowed}") from None
            raise ValueError(f"{key}: {texts.get(key)!r}: {problem['msg']}") from None
        return self.model_copy(update={key: getattr(changed, key) for key in given})

    def mask_spec(self, path: Path | None) -> MaskSpec | None:
        """Where the holes are; None where nothing says it."""
        boxes = parse_boxes(self.boxes)
        if path is None and not boxes and not self.alpha:
            return None
        return MaskSpec(
            path=path,
            boxes=boxes,
            alpha=self.alpha,
            threshold=self.threshold,
            dilate=self.dilate,
            invert=self.invert,
            hold_last=self.hold_last,
        )

    def encoding(self) -> dict[str, Any]:
        """Keyword arguments of `choose_encoding`."""
        keys = ("lossless", "codec", "crf", "pix_fmt", "accept_loss")
        return {key: getattr(self, key) for key in keys}


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Boxes separated by semicolons. Raises ValueError."""
    return tuple(Box.parse(part) for part in text.split(";") if part.strip())
