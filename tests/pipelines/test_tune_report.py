"""Plots of a study (trials in MLflow: `test_tune`)."""

from __future__ import annotations

from pathlib import Path

import cv2
import optuna

from pipelines.tune_report import PLOTS, draw_study


def test_a_study_is_drawn(tmp_path: Path):
    study = optuna.create_study(direction="maximize")
    for number in range(6):
        trial = study.ask()
        value = trial.suggest_float("delta", 1, 300, log=True)
        trial.report(value / 2, 1)
        study.tell(trial, value + number)
    drawn = draw_study(study, tmp_path)
    assert [path.stem for path in drawn] == list(PLOTS)
    assert all(cv2.imread(str(path)).std() > 5 for path in drawn)


def test_one_trial_is_not_drawn(tmp_path: Path):
    study = optuna.create_study(direction="maximize")
    study.tell(study.ask(), 1.0)
    assert draw_study(study, tmp_path) == []
