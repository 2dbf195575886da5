"""`jobs/tune.py` from the command line: a study, its table of trials, the file with the best."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from cssta.video import read_frames, write_video

pytestmark = pytest.mark.cluster
JOB = Path(__file__).resolve().parents[2] / "jobs" / "tune.py"


def test_searches_and_writes_the_best(
    run_job, write_config, cluster_address, small_videos, tmp_path: Path
):
    config = write_config(
        {
            "data": {"videos": str(small_videos), "height": 32, "width": 32, "references": 1},
            "model": {"size": "tiny"},
            "tune": {"trials": 2, "steps": 1, "parallel": 2, "study": "small"},
        }
    )
    others = tmp_path / "others"
    others.mkdir()
    write_video(others / "c.mp4", read_frames(small_videos / "a.mp4")[::-1], 24)
    check = ("--check", others, "--seeds", "1")
    done = run_job("tune", "--config", config, *check, address=cluster_address)
    assert done.returncode == 0, done.stderr
    assert "trial 0: hole PSNR" in done.stdout and "trial 1: hole PSNR" in done.stdout
    assert "2 trials finished, 0 pruned, 0 failed" in done.stdout
    assert "check, seed 1: hole PSNR" in done.stdout
    assert "checked on 1 other videos from 1 other seeds: hole PSNR" in done.stdout
    best = tmp_path / "runs/tune/small/best.yaml"
    assert str(best) in done.stdout
    assert yaml.safe_load(best.read_text())["losses"].keys() == {
        "lambda_r", "lambda_f", "lambda_g", "delta",
    }  # fmt: skip


def test_a_check_that_would_be_none_is_told_before_the_search(
    run_job, write_config, cluster_address, small_videos, tmp_path: Path
):
    config = write_config({"data": {"videos": str(small_videos)}, "tune": {"steps": 1}})
    tuning = ("tune", "--config", config, "--set", "model.size=tiny", "--check", small_videos)
    done = run_job(*tuning, address=cluster_address)
    assert done.returncode == 1 and "trial 0" not in done.stdout
    assert f"error: {small_videos}: 2 of its 2 videos are the search's own" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_needs_seeds(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(JOB.parent))
    monkeypatch.setattr(sys, "argv", [str(JOB), "--config", "c.yaml", "--seeds", "0"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(JOB), run_name="__main__")
    assert "--seeds" in capsys.readouterr().err


def test_empty_bucket_is_one_line(run_job, write_config, cluster_address, tmp_path: Path):
    (tmp_path / "in").mkdir()
    done = run_job("tune", "--config", write_config({}), address=cluster_address)
    assert done.returncode == 1
    assert f"error: {tmp_path / 'in'}" in done.stderr
    assert "Traceback" not in done.stderr
