"""A study's scores are all of one kind: another configuration or footage needs another study."""

from __future__ import annotations

import optuna
import pytest

from pipelines.config import JobConfig
from pipelines.study import TuneError
from pipelines.study_settings import bind_settings, score_settings

INPUTS = {"footage": "0123", "model": "4567"}


def settings(*overrides: str, **inputs: str) -> dict:
    cfg = JobConfig.load(None, ["data.videos=/in", "cluster.storage=/runs", *overrides])
    return score_settings(cfg, INPUTS | inputs)


@pytest.fixture
def study(tmp_path) -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/optuna.db")
    bind_settings(study, settings())
    study.tell(study.ask(), 1.0)
    return study


@pytest.mark.parametrize(
    "override",
    [
        "tune.steps=3000",
        "tune.seeds=2",
        "tune.clips=3",
        "seed=9",
        "data.height=64",
        "data.masks.moving=0.9",
        "losses.lambda_f=0.7",
        "stages.inpainter.learning_rate=0.3",
        "stages.im2im.batch_size=4",
    ],
)
def test_what_decides_a_score_cannot_be_changed(study, override: str):
    key = override.split("=")[0]
    with pytest.raises(TuneError, match=rf"study 's' .*: {key} \S+, now \S+: .*name another"):
        bind_settings(study, settings(override))


def test_other_footage_or_weights_cannot_be_taken(study):
    with pytest.raises(TuneError, match='footage "0123", now "89ab"'):
        bind_settings(study, settings(footage="89ab"))
    with pytest.raises(TuneError, match='arithmetic absent, now "bfloat16 on a GPU"'):
        bind_settings(study, settings(arithmetic="bfloat16 on a GPU"))
    with pytest.raises(TuneError, match='masks absent, now "cd"'):
        bind_settings(study, settings(masks="cd"))


@pytest.mark.parametrize(
    "override",
    [
        "data.videos=/moved",
        "data.max_failures=3",
        "tune.trials=99",
        "tune.parallel=7",
        "tune.ranges.delta=[50, 100]",
        "tune.prune=false",
        "stages.inpainter.steps=5",
        "stages.temporal.batch_size=3",
        "evaluate.clips=5",
    ],
)
def test_what_does_not_can(study, override: str):
    bind_settings(study, settings(override))


def test_every_key_that_is_left_out_exists():
    from pipelines.study_settings import KEYS, LEFT_OUT, SECTIONS

    known = JobConfig.load(None, ["data.videos=/in"]).flat().keys()
    assert known >= {*LEFT_OUT, *KEYS}
    assert all(any(key.startswith(section) for key in known) for section in SECTIONS)


def test_many_differences_are_counted(study):
    keys = ("seed", "tune.steps", "tune.clips", "data.height", "data.width", "data.references")
    others = settings(*(f"{key}=32" for key in keys), footage="1", model="2")
    with pytest.raises(TuneError, match="; and 2 more: such scores cannot be compared"):
        bind_settings(study, others)


def test_trials_of_unknown_kind_are_not_added_to():
    study = optuna.create_study(study_name="old")
    study.tell(study.ask(), 1.0)
    with pytest.raises(TuneError, match="'old' does not say what its trials were scored on"):
        bind_settings(study, settings())
