"""No key of a stage's configuration is lost on its way to the training code."""

from __future__ import annotations

from dataclasses import asdict

from cssta.training import Settings
from pipelines.config import InpainterStageConfig, StageConfig
from pipelines.stage_settings import stage_settings

SHARED = {"learning_rate": 3e-4, "decay": 0.5, "decay_every_epochs": 7, "ema": 0.25}
SHARED |= {"gradient_clip": 2.5, "max_bad_steps": 3, "mixed_precision": True}
OWN = {"targets": 2, "reference_dropout": 0.75, "checkpointing": True}
LOOP = {
    "steps",
    "batch_size",
    "log_every",
    "checkpoint_every",
    "validate_every",
    "validation_clips",
    "compile",
}
"""Keys for the loop around the training code, and for what is done to its networks."""


def test_every_key_arrives():
    assert {*StageConfig.model_fields} == {*SHARED} | LOOP
    assert {*InpainterStageConfig.model_fields} == {*SHARED, *OWN} | LOOP
    for section, given in ((StageConfig, SHARED), (InpainterStageConfig, SHARED | OWN)):
        settings = stage_settings(section(**given))
        assert asdict(settings) == asdict(Settings()) | given


def test_the_configurations_defaults_are_the_training_codes():
    assert stage_settings(StageConfig()) == stage_settings(InpainterStageConfig()) == Settings()
