"""`jobs/batch_infer.py` from the command line: progress, summary, exit codes, a second run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cssta.video import probe
from pipelines.batch import complete_bucket
from pipelines.config import JobConfig

pytestmark = pytest.mark.cluster


def test_completes_a_folder_and_names_what_failed(
    run_job, write_config, cluster_address, tiny_model, small_videos, tmp_path: Path
):
    # (a name that YAML would read as something else)
    source, output = tmp_path / "in: #1", tmp_path / "out"
    shutil.copytree(small_videos, source)
    (source / "bad.mp4").write_text("no video")
    # (The weights are random: no limits.)
    config = write_config({"inference": {"limits": {"seam": None, "warping": None}}})
    arguments = (
        "--config", config, "--videos", source, "--output", output,
        "--model", tiny_model, "--set", f"inference.scratch={tmp_path / 'scratch'}",
    )  # fmt: skip
    tried = run_job(
        "batch_infer", *arguments, "--dry-run", "--price-per-hour", "2", address=cluster_address
    )
    assert tried.returncode == 0, tried.stderr
    assert "3 videos to complete" in tried.stdout and "would fail: bad.mp4" in tried.stdout
    assert "of CPU in all" in tried.stdout and "at 2 per worker and hour" in tried.stdout
    assert not output.exists() and not list((tmp_path / "scratch").iterdir())
    done = run_job("batch_infer", *arguments, address=cluster_address)
    assert done.returncode == 0, done.stderr
    assert "3 videos: 2 done" in done.stdout and "1 failed" in done.stdout
    assert "bad.mp4" in done.stdout
    assert "[3/3]" in done.stdout
    assert str(output / "contact-sheets/a.mp4.png") in done.stdout
    for name in ("a.mp4", "b.mp4"):
        assert probe(output / name).frames == probe(source / name).frames

    # (From another process: nothing that the first one decided by may be its own.)
    changes = [f"inference.videos={json.dumps(str(source))}", f"inference.output={output}"]
    again = complete_bucket(JobConfig.load(config, changes), tiny_model)
    assert (again.count("skipped"), again.count("failed")) == (2, 1)
    assert "2 skipped" in again.text()


def test_nothing_but_failures_is_exit_code_1(
    run_job, mlflow_uri, cluster_address, tiny_model, tmp_path: Path, monkeypatch
):
    """Without a configuration, too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.mp4").write_text("no video")
    done = run_job(
        "batch_infer", "--videos", tmp_path / "in", "--output", tmp_path / "out",
        "--model", tiny_model, address=cluster_address,
    )  # fmt: skip
    assert done.returncode == 1
    assert "bad.mp4" in done.stdout and "Traceback" not in done.stderr
