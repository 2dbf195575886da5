"""Where a search's trials are kept: an Optuna study in a database, and what is best in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna

from pipelines.config import JobConfig
from pipelines.shown_uri import shown


class TuneError(ValueError):
    """The search cannot start, or no trial of it succeeded; the message says what to do."""


def study_storage(cfg: JobConfig) -> str:
    """Optuna's database: as configured, else sqlite in the cluster's (local) storage folder."""
    if cfg.tune.storage is not None:
        return cfg.tune.storage
    if "://" in cfg.cluster.storage:
        raise TuneError(
            f"cluster.storage {cfg.cluster.storage} cannot hold a database: "
            "set tune.storage to an Optuna URL such as postgresql+psycopg://user@host/optuna"
        )
    folder = Path(cfg.cluster.storage)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'optuna.db'}"


def best_params(storage: str, study: str) -> dict[str, float]:
    """Parameters of the best finished trial, such as {"lambda_r": 1.3, "delta": 80.0}.

    Raises TuneError when there is no such study, or none of its trials has finished.
    """
    with open_storage(storage) as database:
        known = optuna.get_all_study_names(database)
        if study not in known:
            raise TuneError(
                f"no study {study!r} in {shown(storage)}; known: {', '.join(known) or 'none'}; "
                "run jobs/tune.py first"
            )
        return dict(best_trial(optuna.load_study(study_name=study, storage=database)).params)


@contextmanager
def open_storage(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's database, while the context lasts. Raises TuneError if it cannot be opened."""
    # sqlite waits this long for another process's lock instead of failing at once.
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        database = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
    except ImportError as error:
        raise TuneError(
            f"tune.storage {shown(url)}: its database driver is missing; for Postgres write "
            "postgresql+psycopg://user@host/database and pip install 'cssta[postgres]'"
        ) from error
    except Exception as error:
        raise TuneError(f"tune.storage {shown(url)} cannot be opened: {error}") from error
    try:
        yield database
    finally:  # so that the file can be moved or removed at once
        database.remove_session()
        database.engine.dispose()


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """The finished trial with the highest score. Raises TuneError, with a cause, without any."""
    try:
        return study.best_trial
    except ValueError:
        errors = [t.user_attrs["error"] for t in study.get_trials() if "error" in t.user_attrs]
        why = f": {errors[-1]}" if errors else ""
        raise TuneError(
            f"no trial of study {study.study_name!r} has finished{why}; "
            "mend the cause and raise tune.trials, or name another tune.study"
        ) from None
