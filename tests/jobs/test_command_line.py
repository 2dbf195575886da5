"""Every job refuses a bad configuration in one line, before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

JOBS = sorted(
    path.stem
    for path in (Path(__file__).resolve().parents[2] / "jobs").glob("*.py")
    if "run_job(" in path.read_text() and path.stem != "command_line"
)


def test_there_are_jobs():
    assert {"batch_infer", "evaluate", "tune"} <= set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_bad_configurations_end_in_one_line(job: str, run_job, write_config, tmp_path: Path):
    config = write_config({})
    for arguments, words in (
        (["--config", tmp_path / "missing.yaml"], ["missing.yaml", "no such file"]),
        (["--config", config, "--set", "data.hight=64"], ["job.yaml", "data.hight", "height"]),
    ):
        done = run_job(job, *arguments)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        for word in words:
            assert word in lines[0]
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_how_it_is_called(job: str, run_job):
    done = run_job(job, "--help")
    assert done.returncode == 0
    assert f"python jobs/{job}.py --config" in done.stdout
    assert "--set KEY=VALUE" in done.stdout
