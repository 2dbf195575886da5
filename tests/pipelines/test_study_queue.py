"""Configured weights are tried first and once; what a driver's death interrupted is tried again."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from pipelines.study_queue import is_configured, queue_lost_again, spent, start_with_configured

RANGES = {"delta": (1.0, 300.0), "lambda_r": (0.1, 10.0)}
CONFIGURED = {"delta": 100.0, "lambda_r": 1.0, "lambda_f": 0.5}


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def suggest(trial: optuna.Trial) -> dict[str, float]:
    for key, (low, high) in RANGES.items():
        trial.suggest_float(key, low, high, log=True)
    return trial.params


def test_the_configured_weights_are_the_first_trial_and_queued_once(study):
    for _ in range(2):  # (as of a driver that was killed before it asked)
        start_with_configured(study, CONFIGURED, RANGES)
    first, second = study.ask(), study.ask()
    assert suggest(first) == {"delta": 100.0, "lambda_r": 1.0} and is_configured(first)
    assert suggest(second) != first.params and not is_configured(second)
    study.tell(first, 1.0)
    start_with_configured(study, CONFIGURED, RANGES)
    assert not study.get_trials(states=(TrialState.WAITING,))


def test_configured_weights_outside_the_ranges_are_told_and_tried_once_they_are_within(study):
    said = []
    start_with_configured(study, CONFIGURED, RANGES | {"delta": (1.0, 50.0)}, said.append)
    (line,) = said
    assert "delta 100 is not within 1 to 50" in line and "may be worse" in line
    study.tell(study.ask(), 1.0)
    start_with_configured(study, CONFIGURED, RANGES, said.append)
    assert is_configured(study.ask()) and len(said) == 1


@pytest.mark.parametrize("suggested", [True, False])
def test_a_lost_trial_is_queued_with_all_that_it_was(study, suggested: bool):
    """Also where the driver had only taken it from the queue."""
    start_with_configured(study, CONFIGURED, RANGES)
    lost = study.ask()
    if suggested:
        suggest(lost)
    queue_lost_again(study)
    assert study.trials[lost.number].state == TrialState.FAIL and spent(study) == 0
    again = study.ask()
    assert suggest(again) == {"delta": 100.0, "lambda_r": 1.0} and is_configured(again)


@pytest.mark.parametrize("step", ["tell", "enqueue_trial"])
def test_a_driver_that_dies_while_it_queues_loses_nothing_and_repeats_nothing(
    study, monkeypatch, step: str
):
    lost = suggest(study.ask())

    def die(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, step, die)
        queue_lost_again(study)
    queue_lost_again(study)
    queue_lost_again(study)
    (waiting,) = study.get_trials(states=(TrialState.WAITING,))
    assert suggest(study.ask()) == lost
    assert waiting.number == 1 and not study.get_trials(states=(TrialState.WAITING,))


def test_trials_that_ended_by_themselves_are_spent(study):
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    bad = study.ask()
    bad.set_user_attr("error", "diverged")
    study.tell(bad, state=TrialState.FAIL)
    study.ask()
    assert spent(study) == 2
