"""Search for the loss weights: one driver asks Optuna and tells it, trials run as Ray tasks.

Every finished trial is in the study's database before the next one starts, so a driver that is
killed loses only the trials that were running. The next driver finds those still marked RUNNING,
marks them failed, queues their parameters again and goes on to the number of trials asked for. A
study has one driver at a time; several may run different studies on one database (Postgres).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import ray
import yaml
from optuna.trial import Trial, TrialState

from pipelines.config import JobConfig
from pipelines.tracking import JobRun

log = logging.getLogger(__name__)

Objective = Callable[[dict[str, float], JobConfig], float]
"""Score of one set of loss weights, higher is better; runs in a Ray task (see pipelines.trial)."""


class TuneError(ValueError):
    """The search cannot start, or no trial of it succeeded; the message says what to do."""


@dataclass(frozen=True)
class TrialRow:
    """One finished trial: `score` is nan and `message` says why where it failed."""

    number: int
    params: dict[str, float]
    score: float
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class TuneSummary:
    """Outcome of a search over all its drivers; `rows` are the trials that the last one ran."""

    study: str
    storage: str
    finished: int
    failed: int
    best_params: dict[str, float]
    best_score: float
    best_file: Path | None
    rows: tuple[TrialRow, ...]

    def text(self) -> str:
        """The outcome for a person."""
        found = ", ".join(f"{key} {value:.4g}" for key, value in self.best_params.items())
        lines = [
            f"study {self.study} in {self.storage}",
            f"{self.finished} trials finished, {self.failed} failed, {len(self.rows)} run now",
            f"best score {self.best_score:.4f} with {found}",
        ]
        if self.best_file:
            lines.append(f"best parameters: {self.best_file}")
        return "\n".join(lines)


def study_storage(cfg: JobConfig) -> str:
    """Optuna's database: as configured, else sqlite in the cluster's (local) storage folder."""
    if cfg.tune.storage is not None:
        return cfg.tune.storage
    if "://" in cfg.cluster.storage:
        raise TuneError(
            f"cluster.storage {cfg.cluster.storage} cannot hold a database: "
            "set tune.storage to an Optuna URL such as postgresql://user@host/optuna"
        )
    folder = Path(cfg.cluster.storage)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'optuna.db'}"


def best_params(storage: str, study: str) -> dict[str, float]:
    """Parameters of the best finished trial, such as {"lambda_r": 1.3, "delta": 80.0}.

    Raises TuneError when there is no such study, or none of its trials has finished.
    """
    with _open_storage(storage) as database:
        known = optuna.get_all_study_names(database)
        if study not in known:
            raise TuneError(
                f"no study {study!r} in {storage}; known: {', '.join(known) or 'none'}; "
                "run jobs/tune.py first"
            )
        return dict(_best(optuna.load_study(study_name=study, storage=database)).params)


def search(
    cfg: JobConfig,
    objective: Objective,
    *,
    on_trial: Callable[[TrialRow], None] | None = None,
    poll_seconds: float = 5.0,
) -> TuneSummary:
    """Run trials until `cfg.tune.trials` of the study are spent, `cfg.tune.parallel` at a time.

    A trial is spent when it finished or its objective raised; those lost with a killed driver are
    not. `on_trial` sees each trial as it ends. Needs a connected Ray; raises TuneError when the
    ranges are empty or no trial ever succeeded.
    """
    ranges = {key: pair for key, pair in cfg.tune.ranges.model_dump().items() if pair}
    if not ranges:
        raise TuneError("tune.ranges is empty: give at least one range, such as delta: [1, 300]")
    storage = study_storage(cfg)
    with _open_storage(storage) as database:
        study = optuna.create_study(
            study_name=cfg.tune.study,
            storage=database,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=cfg.seed),
        )
        _requeue_lost(study)
        # A sampler seeded alike after every restart would draw the same first parameters again.
        study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + len(study.get_trials()))
        rows = []
        for row in _run_trials(study, cfg, objective, ranges, poll_seconds):
            rows.append(row)
            if on_trial:
                on_trial(row)
        best = _best(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        summary = TuneSummary(
            study=cfg.tune.study,
            storage=storage,
            finished=states.count(TrialState.COMPLETE),
            failed=states.count(TrialState.FAIL),
            best_params=dict(best.params),
            best_score=float(best.value),
            best_file=_write_best(cfg, best),
            rows=tuple(rows),
        )
    return summary


def log_trial(run: JobRun, row: TrialRow) -> None:
    """A child run of the search's MLflow run for one trial."""
    try:
        child = run.stage(f"trial-{row.number}")
    except Exception as error:  # a tracker that is away must not end the search
        log.warning("trial %d is not in MLflow: %s", row.number, error)
        return
    child.log_params(row.params)
    child.log_metrics({"seconds": row.seconds} | ({} if row.message else {"score": row.score}))
    if row.message:
        child.set_tags({"error": row.message})
    child.finish("FAILED" if row.message else "FINISHED")


def _run_trials(
    study: optuna.Study,
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
    remaining = cfg.tune.trials - _spent(study)
    running: dict[ray.ObjectRef, tuple[Trial, float]] = {}
    while remaining > 0 or running:
        while remaining > 0 and len(running) < cfg.tune.parallel:
            trial = study.ask()
            params = {key: _suggest(trial, key, *pair) for key, pair in ranges.items()}
            ref = task.remote(shared_objective, params, shared_cfg)
            running[ref] = (trial, time.monotonic())
            remaining -= 1
        done, _ = ray.wait(list(running), num_returns=1, timeout=poll_seconds)
        for ref in done:
            trial, started = running.pop(ref)
            yield _tell(study, trial, ref, time.monotonic() - started)


def _score(objective: Objective, params: dict[str, float], cfg: JobConfig) -> float:
    return objective(params, cfg)


def _tell(study: optuna.Study, trial: Trial, ref: ray.ObjectRef, seconds: float) -> TrialRow:
    message, score = "", math.nan
    try:
        score = float(ray.get(ref))
        if not math.isfinite(score):
            message = f"the objective returned {score}"
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        message = f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
    if message:
        log.warning("trial %d failed: %s", trial.number, message)
        trial.set_user_attr("error", message)
        study.tell(trial, state=TrialState.FAIL)
        score = math.nan
    else:
        study.tell(trial, score)
    return TrialRow(trial.number, dict(trial.params), score, seconds, message)


def _suggest(trial: Trial, key: str, low: float, high: float) -> float:
    """Weights act by their ratio to each other, so wide ranges are searched on a log scale."""
    return trial.suggest_float(key, low, high, log=high / low >= 10)


def _spent(study: optuna.Study) -> int:
    """Trials that count: finished, or failed by their own objective (not by a lost driver)."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return sum(t.state is TrialState.COMPLETE or "error" in t.user_attrs for t in trials)


def _requeue_lost(study: optuna.Study) -> None:
    """Trials still RUNNING belong to a driver that is gone: fail them, queue their parameters."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        log.warning("trial %d was lost with its driver: it is queued again", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, skip_if_exists=False)


def _best(study: optuna.Study) -> optuna.trial.FrozenTrial:
    try:
        return study.best_trial
    except ValueError:
        errors = [t.user_attrs["error"] for t in study.get_trials() if "error" in t.user_attrs]
        why = f": {errors[-1]}" if errors else ""
        raise TuneError(
            f"no trial of study {study.study_name!r} has finished{why}; "
            "mend the cause and raise tune.trials, or name another tune.study"
        ) from None


def _write_best(cfg: JobConfig, best: optuna.trial.FrozenTrial) -> Path | None:
    """best.yaml beside the study: a `losses:` section that fits into a job's configuration."""
    if "://" in cfg.cluster.storage:
        return None
    path = Path(cfg.cluster.storage) / "tune" / cfg.tune.study / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# Trial {best.number} of study {cfg.tune.study}, score {best.value:.6g}\n"
    temporary = path.with_suffix(".yaml.part")
    temporary.write_text(head + yaml.safe_dump({"losses": dict(best.params)}), encoding="utf-8")
    return temporary.replace(path)


def _gpus_per_trial(cfg: JobConfig) -> float:
    available = ray.cluster_resources().get("GPU", 0)
    if cfg.cluster.use_gpu is False or not available:
        return 0
    return min(1.0, available / cfg.tune.parallel)


@contextmanager
def _open_storage(url: str) -> Iterator[optuna.storages.RDBStorage]:
    # sqlite waits this long for another process's lock instead of failing at once.
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        database = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
    except Exception as error:
        raise TuneError(f"tune.storage {url} cannot be opened: {error}") from error
    try:
        yield database
    finally:  # so that the file can be moved or removed at once
        database.remove_session()
        database.engine.dispose()
