"""Every job refuses a bad configuration in one line, before it starts anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = sorted(
    path.stem
    for path in (REPOSITORY / "jobs").glob("*.py")
    if "run_job(" in path.read_text() and path.stem != "command_line"
)
# Each job as a script, but all of them in one process: loading Ray takes seconds.
RUNNER = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, "jobs")  # as Python does for a script
told = []
for job, *arguments in json.loads(sys.argv[1]):
    sys.argv = [f"jobs/{job}.py", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def run_all(*commands: list) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each [job, argument, ...]."""
    given = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, given], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_there_are_jobs():
    assert {"ablate", "batch_infer", "evaluate", "promote", "train_all", "tune"} <= set(JOBS)


def test_bad_configurations_end_in_one_line(write_config, tmp_path: Path):
    config = write_config({})
    bad = [
        (["--config", tmp_path / "missing.yaml"], ["missing.yaml", "no such file"]),
        (["--config", config, "--set", "data.hight=64"], ["job.yaml", "data.hight", "height"]),
    ]
    cases = [(job, arguments, words) for job in JOBS for arguments, words in bad]
    results = run_all(*([job, *arguments] for job, arguments, _ in cases))
    for (job, _, words), (code, _, stderr) in zip(cases, results, strict=True):
        lines = stderr.strip().splitlines()
        assert (code, len(lines)) == (1, 1), (job, stderr)
        assert lines[0].startswith("error: ")
        assert all(word in lines[0] for word in words), (job, stderr)
    assert not (tmp_path / "runs").exists()


def test_help_shows_how_it_is_called():
    for job, (code, stdout, _) in zip(JOBS, run_all(*([j, "--help"] for j in JOBS)), strict=True):
        assert code == 0
        assert f"python jobs/{job}.py --" in stdout and "--config FILE" in stdout
        assert "--set KEY=VALUE" in stdout


def test_a_batch_needs_no_configuration(tmp_path: Path):
    (tmp_path / "in").mkdir()
    cases = [
        (["--videos", tmp_path / "in"], "inference.videos is given without inference.output"),
        (["--set", "inference=3"], "inference: must be a section"),
        (["--set", "crf"], "command line: override 'crf' must be written key=value"),
        (["--set", "data.hight=3"], "command line: data.hight: unknown key"),
    ]
    results = run_all(*(["batch_infer", *given] for given, _ in cases))
    for (_, words), (code, _, stderr) in zip(cases, results, strict=True):
        assert code == 1 and words in stderr, stderr


def test_a_job_is_a_script_of_its_own(run_job, tmp_path: Path):
    done = run_job("ablate", "--config", tmp_path / "missing.yaml")
    assert done.returncode == 1 and done.stderr.startswith("error: ")
