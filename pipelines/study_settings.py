"""What a study's scores mean: all that decides one is kept with the study, and holds for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna

from pipelines.config import JobConfig
from pipelines.shown_uri import shown
from pipelines.study import TuneError

SETTINGS = "settings"
NAMED = 6  # differences in a message

SECTIONS = ("data.", "losses.", "stages.im2im.", "stages.inpainter.")
KEYS = ("seed", "tune.steps", "tune.seeds", "tune.clips")
# Where footage is does not matter (its digests do), nor what only longer training makes use of.
PLACES = ("videos", "layout", "images", "prepared", "masks.objects", "s3_endpoint")
UNUSED_DATA = ("max_failures", "clips_per_epoch")
UNUSED_STAGE = (
    *("steps", "decay", "decay_every_epochs", "ema", "max_bad_steps"),
    *("log_every", "checkpoint_every", "validate_every", "validation_clips", "compile"),
)
LEFT_OUT = {
    *(f"data.{key}" for key in (*PLACES, *UNUSED_DATA)),
    "stages.inpainter.checkpointing",
    *(f"stages.{stage}.{key}" for stage in ("im2im", "inpainter") for key in UNUSED_STAGE),
}


def score_settings(cfg: JobConfig, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Plain values by name; `inputs`: digests of what the objective was made from."""
    flat = cfg.flat()
    chosen = {
        key: value
        for key, value in flat.items()
        if (key in KEYS or key.startswith(SECTIONS)) and key not in LEFT_OUT
    }
    return json.loads(json.dumps(chosen | dict(inputs), default=str))


def bind_settings(study: optuna.Study, settings: Mapping[str, Any]) -> None:
    """Keep them in a new study. Raises TuneError if an old one's scores are of other settings."""
    known = study.user_attrs.get(SETTINGS)
    remedy = "such scores cannot be compared; name another tune.study"
    if known is None:
        if study.get_trials(deepcopy=False):
            raise TuneError(
                f"study {study.study_name!r} does not say what its trials were scored on: {remedy}"
            )
        study.set_user_attr(SETTINGS, dict(settings))
        return
    differences = [
        f"{key} {_show(known, key)}, now {_show(settings, key)}"
        for key in sorted(known.keys() | settings.keys())
        if _show(known, key) != _show(settings, key)
    ]
    if differences:
        more = len(differences) - NAMED
        listed = "; ".join(differences[:NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise TuneError(f"study {study.study_name!r} has trials of other kind: {listed}: {remedy}")


def _show(settings: Mapping[str, Any], key: str) -> str:
    return shown(json.dumps(settings[key])) if key in settings else "absent"
