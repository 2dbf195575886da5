"""A study has one driver: a second one is refused, a dead one's place is taken."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from pipelines.batch_lease import this_process
from pipelines.study import TuneError
from pipelines.study_lease import DRIVER, StudyLease

HOLDS = """
import sys, time, optuna
from pipelines.study_lease import StudyLease
with StudyLease(optuna.load_study(study_name="s", storage=sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
FAR = {**this_process(), "token": "theirs", "machine": "far", "host": "far-host", "beat": 3}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(study_name="s", storage=uri)
    return uri


@pytest.fixture
def study(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage)


def test_held_and_renewed_while_it_is_open(study):
    with StudyLease(study, beat=0.05) as lease:
        deadline = time.monotonic() + 20
        while study.user_attrs[DRIVER]["beat"] < 2:
            assert time.monotonic() < deadline, "it is never renewed"
            time.sleep(0.05)
        lease.check()
        with pytest.raises(TuneError, match=r"study 's': another search .* works on it"):
            StudyLease(study).__enter__()
        lease.check()
    assert not study.user_attrs[DRIVER]
    with StudyLease(study):
        pass


def test_a_living_driver_keeps_it_and_a_killed_one_does_not(storage, study):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLDS, storage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(TuneError, match=rf"process {other.pid} on .*name another"):
                StudyLease(study).__enter__()
        finally:
            other.kill()
    with StudyLease(study) as lease:  # (without waiting for a sign: it would be a minute)
        lease.check()


def test_another_machine_is_judged_by_its_signs_of_life(study):
    study.set_user_attr(DRIVER, FAR)
    said = []
    with StudyLease(study, said.append, stale=0.5):  # it gives none
        assert study.user_attrs[DRIVER]["token"] != "theirs"
    assert len(said) == 1 and "far-host" in said[0]

    study.set_user_attr(DRIVER, FAR)

    def alive(line: str) -> None:
        study.set_user_attr(DRIVER, FAR | {"beat": 4})

    with pytest.raises(TuneError, match="far-host"):
        StudyLease(study, alive, stale=60).__enter__()
    assert study.user_attrs[DRIVER]["token"] == "theirs"


def test_one_that_was_taken_is_noticed_and_left(study):
    """As after a sleep of the machine that was longer than others wait."""
    with StudyLease(study, beat=600) as lease:
        study.set_user_attr(DRIVER, FAR)
        with pytest.raises(TuneError, match=r"far-host.* has taken over"):
            lease.check()
    assert study.user_attrs[DRIVER] == FAR


def test_a_database_that_is_away_for_a_while_does_not_end_the_renewing(study, monkeypatch):
    write, refused = StudyLease._write, []

    def flaky(lease, holder):
        if holder and holder["beat"] in (1, 2):
            refused.append(holder["beat"])
            raise OSError("no answer")
        write(lease, holder)

    monkeypatch.setattr(StudyLease, "_write", flaky)
    with StudyLease(study, beat=0.05) as lease:
        deadline = time.monotonic() + 20
        while study.user_attrs[DRIVER]["beat"] < 3:
            assert time.monotonic() < deadline, "it gave up"
            time.sleep(0.05)
        lease.check()
    assert refused == [1, 2]
