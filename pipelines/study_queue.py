"""What a study is to try before its sampler proposes: the configured weights, and lost trials."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

log = logging.getLogger(__name__)

CONFIGURED, LOST = "configured", "lost"  # attributes of queued trials
ERROR = "error"  # of failed ones

Ranges = Mapping[str, tuple[float, float]]


def start_with_configured(
    study: optuna.Study,
    configured: Mapping[str, float],
    ranges: Ranges,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Queue the configured weights once; `say` why not, where the ranges leave them out.

    They are never to be pruned, see `is_configured`.
    """
    outside = [
        f"{key} {configured[key]:g} is not within {low:g} to {high:g}"
        for key, (low, high) in ranges.items()
        if not low <= configured[key] <= high
    ]
    if outside:
        say(
            "the configured weights are no trial of this search, so its best may be worse than "
            f"they are: {', '.join(outside)}; widen tune.ranges to have them tried"
        )
    elif not any(CONFIGURED in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial({key: configured[key] for key in ranges}, user_attrs={CONFIGURED: True})


def is_configured(trial: Trial) -> bool:
    """Whether the trial is that of the configured weights."""
    return bool(trial.user_attrs.get(CONFIGURED))


def queue_lost_again(study: optuna.Study) -> None:
    """Trials still RUNNING belong to a driver that is gone: queue their parameters, fail them.

    In this order: what is killed in between has lost nothing, and is not queued twice.
    """
    again = {t.user_attrs.get(LOST) for t in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        # (Of a queued trial that had only been taken, the parameters are not yet its own.)
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        if params and trial.number not in again:
            kept = {key: True for key in (CONFIGURED,) if trial.user_attrs.get(key)}
            study.enqueue_trial(params, user_attrs={LOST: trial.number} | kept)
        log.warning("trial %d was lost with its driver: it is queued again", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)


def spent(study: optuna.Study) -> int:
    """Trials that count: ended by themselves, rather than with a lost driver."""
    return sum(_is_spent(trial) for trial in study.get_trials(deepcopy=False))


def _is_spent(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or ERROR in trial.user_attrs
