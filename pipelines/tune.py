"""Search for the loss weights: one driver asks Optuna and tells it, trials run as Ray tasks.

Trials report scores on the way, and those that fall behind are pruned. If the configured weights
are within the ranges, they are the first trial, which is never pruned: the best is then no worse
than they are, by its score.

Every finished trial is in the study's database before the next one starts, so a driver that is
killed loses only the trials that were running. The next driver finds those still marked RUNNING,
queues their parameters again and goes on to the number of trials asked for. A study has one driver
at a time (`pipelines.study_lease`) and scores of one kind (`pipelines.study_settings`); several
drivers may run different studies on one database (Postgres).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import optuna
import ray
from optuna.trial import Trial, TrialState

from pipelines import storage as files
from pipelines.config import JobConfig
from pipelines.failures import TooManyFailuresError
from pipelines.shown_uri import shown
from pipelines.study import TuneError, best_trial, open_storage, study_storage
from pipelines.study_lease import StudyLease
from pipelines.study_queue import (
    ERROR,
    is_configured,
    queue_lost_again,
    spent,
    start_with_configured,
)
from pipelines.study_settings import bind_settings, score_settings
from pipelines.trial_reports import Board, PrunedError, Reporter, Score
from pipelines.tuned_losses import write_losses

log = logging.getLogger(__name__)

Objective = Callable[[dict[str, float], JobConfig, Callable[[int, float], None]], float]
"""`objective(params, cfg, report)`: score of one set of loss weights, higher is better; runs in a
Ray task (see pipelines.trial). `report(step, score)` on the way raises PrunedError to end it."""


@dataclass(frozen=True)
class TrialRow:
    """One ended trial: `score` is nan and `message` says why where it failed.

    A trial that was pruned has `pruned_at`, the step, and the score that it had then. `history`:
    (step, score) on the way.
    """

    number: int
    params: dict[str, float]
    score: float
    seconds: float
    message: str = ""
    pruned_at: int = 0
    history: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TuneSummary:
    """Outcome of a search over all its drivers; `rows` are the trials that the last one ran."""

    study: str
    storage: str
    finished: int
    pruned: int
    failed: int
    best_params: dict[str, float]
    best_score: float
    best_file: str
    rows: tuple[TrialRow, ...]

    def text(self) -> str:
        """The outcome for a person."""
        found = ", ".join(f"{key} {value:.4g}" for key, value in self.best_params.items())
        lines = [
            f"study {self.study} in {shown(self.storage)}",
            f"{self.finished} trials finished, {self.pruned} pruned, {self.failed} failed, "
            f"{len(self.rows)} run now",
            f"best score {self.best_score:.4f} with {found}",
            f"best parameters: {self.best_file}",
        ]
        return "\n".join(lines)


def search(
    cfg: JobConfig,
    objective: Objective,
    *,
    inputs: Mapping[str, str] | None = None,
    on_trial: Callable[[TrialRow], None] | None = None,
    on_study: Callable[[optuna.Study], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    poll_seconds: float = 5.0,
) -> TuneSummary:
    """Run trials until `cfg.tune.trials` of the study are spent, `cfg.tune.parallel` at a time.

    A trial is spent when it finished, was pruned, or its objective raised; those lost with a killed
    driver are not. `inputs`: digests of what the objective was made from. `on_trial` sees each
    trial as it ends, `on_study` the study at the end, `say` takes lines for the user.

    Needs a connected Ray; raises TuneError when the ranges are empty, the study has another driver
    or scores of another kind, or no trial ever succeeded; TooManyFailuresError when an objective
    does; StorageError when the best parameters cannot be written.
    """
    ranges = {key: pair for key, pair in cfg.tune.ranges.model_dump().items() if pair}
    if not ranges:
        raise TuneError("tune.ranges is empty: give at least one range, such as delta: [1, 300]")
    storage = study_storage(cfg)
    rows = []
    with open_storage(storage) as database:
        study = optuna.create_study(
            study_name=cfg.tune.study,
            storage=database,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(cfg),
        )
        with StudyLease(study, say) as lease:
            bind_settings(study, score_settings(cfg, inputs or {}))
            queue_lost_again(study)
            start_with_configured(study, cfg.losses.model_dump(), ranges, say)
            # A sampler seeded alike after every restart would draw the same parameters again.
            study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + len(study.get_trials()))
            for row in _run_trials(study, lease, cfg, objective, ranges, poll_seconds):
                rows.append(row)
                if on_trial:
                    on_trial(row)
        best = best_trial(study)
        if on_study:
            on_study(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        summary = TuneSummary(
            study=cfg.tune.study,
            storage=storage,
            finished=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            best_params=dict(best.params),
            best_score=float(best.value),
            best_file=_write_best(cfg, best),
            rows=tuple(rows),
        )
    return summary


def _run_trials(
    study: optuna.Study,
    lease: StudyLease,
    cfg: JobConfig,
    objective: Objective,
    ranges: dict[str, tuple[float, float]],
    poll_seconds: float,
) -> Iterator[TrialRow]:
    """Keep `parallel` Ray tasks going; yield a row as each trial ends."""
    gpus = _gpus_per_trial(cfg)
    # A worker that dies (out of memory, a lost node) is worth one more try; an exception is not.
    options = {"num_cpus": cfg.cluster.cpus_per_worker, "num_gpus": gpus, "max_retries": 1}
    task = ray.remote(_score).options(**options)
    # Stored once: every trial gets the same.
    shared_objective, shared_cfg = ray.put(objective), ray.put(cfg)
    remaining = cfg.tune.trials - spent(study)
    running: dict[ray.ObjectRef, tuple[Trial, float]] = {}
    if remaining <= 0:
        return
    with closing(Board()) as board:
        asked = board.take()
        while remaining > 0 or running:
            lease.check()
            while remaining > 0 and len(running) < cfg.tune.parallel:
                trial = study.ask()
                params = {key: _suggest(trial, key, *pair) for key, pair in ranges.items()}
                reporter = board.reporter(trial.number)
                ref = task.remote(shared_objective, params, shared_cfg, reporter)
                running[ref] = (trial, time.monotonic())
                remaining -= 1
            waited = [*([asked] if asked else []), *running]
            done, _ = ray.wait(waited, num_returns=1, timeout=poll_seconds)
            lease.check()  # (before anything is told)
            for ref in done:
                if ref == asked:
                    scores = board.scores(asked)
                    _answer(board, scores or [], [trial for trial, _ in running.values()])
                    asked = None if scores is None else board.take()
                else:
                    trial, started = running.pop(ref)
                    yield _tell(study, trial, ref, time.monotonic() - started)


def _score(
    objective: Objective, params: dict[str, float], cfg: JobConfig, report: Reporter
) -> float:
    return objective(params, cfg, report)


def _answer(board: Board, scores: list[Score], running: list[Trial]) -> None:
    """Put scores into the study and say whether their trials go on."""
    trials = {trial.number: trial for trial in running}
    for score in scores:
        trial = trials.get(score.trial)
        if trial is not None:  # (ended meanwhile: its worker died)
            trial.report(score.value, score.step)
        gone = trial is None
        board.answer(score, prune=gone or (trial.should_prune() and not is_configured(trial)))


def _tell(study: optuna.Study, trial: Trial, ref: ray.ObjectRef, seconds: float) -> TrialRow:
    message, score, pruned = "", math.nan, False
    try:
        score = float(ray.get(ref))
        if not math.isfinite(score):
            message = f"the objective returned {score}"
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, TooManyFailuresError):  # (not the trial's fault: it stays to be run)
            raise cause from error
        pruned = isinstance(cause, PrunedError)
        if not pruned:
            message = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
    if message:
        log.warning("trial %d failed: %s", trial.number, message)
        trial.set_user_attr(ERROR, message)
        study.tell(trial, state=TrialState.FAIL)
    elif pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score)
    values = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    history = tuple(sorted(values.items()))
    if pruned and history:
        score = history[-1][1]
    return TrialRow(
        trial.number,
        dict(trial.params),
        math.nan if message else score,
        seconds,
        message,
        history[-1][0] if pruned and history else 0,
        history,
    )


def _suggest(trial: Trial, key: str, low: float, high: float) -> float:
    """Weights act by their ratio to each other, so every range is searched on a log scale.

    (Also because a study must keep to one scale, whatever the ranges of later drivers.)
    """
    return trial.suggest_float(key, low, high, log=True)


def _pruner(cfg: JobConfig) -> optuna.pruners.BasePruner:
    if not cfg.tune.prune:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=cfg.tune.startup_trials)


def _write_best(cfg: JobConfig, best: optuna.trial.FrozenTrial) -> str:
    """best.yaml in the cluster's storage: a `losses:` section, see `pipelines.tuned_losses`."""
    uri = files.join(cfg.cluster.storage, "tune", cfg.tune.study, "best.yaml")
    head = f"Trial {best.number} of study {cfg.tune.study}, score {best.value:.6g}"
    write_losses(uri, cfg.losses.model_dump() | best.params, head, cfg.data.s3_endpoint)
    return uri


def _gpus_per_trial(cfg: JobConfig) -> float:
    available = ray.cluster_resources().get("GPU", 0)
    if cfg.cluster.use_gpu is False or not available:
        return 0
    return min(1.0, available / cfg.tune.parallel)
