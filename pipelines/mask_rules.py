"""Where the masks of all videos are, said in one text: a place, a pattern or a box.

`s3://bucket/masks` is a folder with a mask for each video, or one file for all; with `{stem}`,
`{name}` or `{parent}` in it, it is a pattern that is filled in for each video; `box:x,y,w,h` or
`box:x,y,w,h@t0-t1` is a rectangle in every video (several, separated by semicolons).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from pipelines.batch_options import parse_boxes
from pipelines.config_types import absolute
from pipelines.storage_listing import VIDEO_SUFFIXES

BOX = "box:"
FIELD = re.compile(r"\{(stem|name|parent)\}")
ALLOWED = "a rule may use {stem}, {name} and {parent}"


def mask_rule(text: str) -> str:
    """The text as it is worked with, local paths absolute. Raises ValueError."""
    if text.startswith(BOX):
        if not parse_boxes(boxes_of(text)):
            raise ValueError(f"{text!r} names no box; write box:x,y,w,h or box:x,y,w,h@t0-t1")
        return text
    location = absolute(text)
    if is_pattern(location):
        unknown = re.findall(r"\{\w*\}", FIELD.sub("", location))
        if unknown:
            raise ValueError(f"{text!r}: {unknown[0]} is not known; {ALLOWED}")
        if FIELD.search("/".join(location.split("/")[:3])) and location.startswith("s3://"):
            raise ValueError(f"{text!r}: the bucket has to be named; write s3://bucket/...")
    return location


MaskRule = Annotated[str, AfterValidator(mask_rule)]


def is_pattern(rule: str) -> bool:
    """Whether it is to be filled in for each video."""
    return not rule.startswith(BOX) and bool(FIELD.search(rule))


def boxes_of(rule: str) -> str:
    """The boxes, as in `VideoOptions.boxes`; "" where the rule names a place."""
    return rule.removeprefix(BOX) if rule.startswith(BOX) else ""


def place_of(rule: str | None) -> str | None:
    """URI of what all masks are at or below; None for boxes."""
    if rule is None or rule.startswith(BOX):
        return None
    field = FIELD.search(rule)
    return (rule[: field.start()].rpartition("/")[0] or "/") if field else rule


def filled_in(pattern: str, name: str) -> str:
    """Path of a video's mask below `place_of(pattern)`.

    Of the video `a/b.mp4`, relative to the batch's input, the stem is `b`, the name `b.mp4`, the
    parent `a`; a folder of frames `walk.v2` is its own stem.
    """
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    parent = "" if str(path.parent) == "." else str(path.parent)
    values = {"stem": stem, "name": path.name, "parent": parent}
    rest = pattern[len(place_of(pattern) or "") :]
    parts = FIELD.sub(lambda field: values[field[1]], rest).split("/")
    return "/".join(part for part in parts if part not in ("", "."))
