"""What all sections of the configuration are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from pipelines.storage_names import local_path, scheme


def absolute(location: str) -> str:
    """A URI as it is; a local path made absolute, because workers run in other directories.

    `file://` becomes a path, so that nothing appended to it later is read as escaped.
    """
    if not location.strip():
        raise ValueError("is empty; give a folder or a URI such as s3://bucket/folder")
    return local_path(location) if scheme(location) in ("", "file") else location


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """A range of numbers, the lower one first; ValueError where it is not."""
    if pair[0] > pair[1]:
        raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] is upside down; write [low, high]")
    return pair


Location = Annotated[str, AfterValidator(absolute)]
"""A local folder (made absolute) or a URI such as s3://bucket/folder."""


class Section(BaseModel):
    """A part of the configuration: immutable, strictly typed, without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )
