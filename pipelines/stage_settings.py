"""A stage's section of the configuration as the training code's settings."""

from __future__ import annotations

from dataclasses import fields

from cssta.training import Settings
from pipelines.config import StageConfig


def stage_settings(stage: StageConfig) -> Settings:
    """Every setting that the section has a key for; defaults for the others."""
    known = type(stage).model_fields
    given = {f.name: getattr(stage, f.name) for f in fields(Settings) if f.name in known}
    return Settings(**given)
