"""A study's database: which one it is, and what is said where it cannot be opened."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
import pytest

from pipelines.config import JobConfig
from pipelines.study import TuneError, best_params, best_trial, open_storage, study_storage


def configured(**sections) -> JobConfig:
    return JobConfig.parse({"data": {"videos": "/in"}, **sections})


def test_sqlite_in_the_storage_folder_unless_another_is_named(tmp_path: Path):
    local = {"storage": str(tmp_path / "runs")}
    url = study_storage(configured(cluster=local))
    assert url == f"sqlite:///{tmp_path}/runs/optuna.db" and (tmp_path / "runs").is_dir()
    with open_storage(url) as database:
        optuna.create_study(study_name="s", storage=database)
    assert (tmp_path / "runs" / "optuna.db").exists()
    postgres = "postgresql+psycopg://me@host/optuna"
    assert study_storage(configured(tune={"storage": postgres})) == postgres
    with pytest.raises(TuneError, match=r"s3://bucket/runs cannot hold a database.*tune\.storage"):
        study_storage(configured(cluster={"storage": "s3://bucket/runs"}))


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql+psycopg://me:secret@host/optuna", "psycopg"),
        ("postgresql://me:secret@host/optuna", "psycopg2"),
    ],
)
def test_without_a_driver_for_postgres_its_extra_is_named(monkeypatch, url: str, driver: str):
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(TuneError, match=r"pip install 'cssta\[postgres\]'") as caught:
        best_params(url, "s")
    assert "postgresql+psycopg://user@host/database" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_extra_that_is_named_exists():
    document = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (line,) = (line for line in document.splitlines() if line.startswith("postgres = "))
    assert "psycopg[binary]" in line


def test_storage_that_cannot_be_opened(tmp_path: Path):
    with pytest.raises(TuneError, match="cannot be opened"):
        best_params(f"sqlite:///{tmp_path}/missing-folder/optuna.db", "planted")
    with pytest.raises(TuneError, match=r"nosuch://me:\*\*\*@host/o cannot be opened") as caught:
        best_params("nosuch://me:secret@host/o", "planted")
    assert "secret" not in str(caught.value)


def test_the_best_and_why_there_is_none(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")
    with pytest.raises(TuneError, match=r"no trial of study 's' has finished; "):
        best_trial(study)
    failed = study.ask()
    failed.set_user_attr("error", "RuntimeError: diverged")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(TuneError, match="has finished: RuntimeError: diverged; mend the cause"):
        best_params(url, "s")
    for value in (3.0, 1.0):
        trial = study.ask()
        trial.suggest_float("delta", 1, 300)
        study.tell(trial, value)
    assert best_params(url, "s") == study.trials[1].params
    with pytest.raises(TuneError, match=r"no study 'other'.*known: s"):
        best_params(url, "other")
