"""`jobs/evaluate.py` from the command line: table, files, MLflow run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def test_prints_and_keeps_the_table(
    run_job, write_config, cluster_address, tiny_model, small_videos, tmp_path: Path
):
    from mlflow import MlflowClient

    shutil.copytree(small_videos, tmp_path / "in")
    (tmp_path / "in/bad.mp4").write_text("no video")
    config = write_config(
        {
            "name": "check",
            "data": {"videos": str(tmp_path / "in"), "height": 48, "width": 64},
            "evaluate": {"videos": str(tmp_path / "in"), "max_frames": 4},
        }
    )
    done = run_job("evaluate", "--config", config, "--model", tiny_model, address=cluster_address)
    assert done.returncode == 0, done.stderr
    assert "| a.mp4 | 4 |" in done.stdout and "bad.mp4" in done.stdout
    for noise in ("INFO mlflow", "Progress bars", "alembic"):
        assert noise not in done.stderr
    content = json.loads((tmp_path / "runs/check/evaluation/evaluation.json").read_text())
    assert (tmp_path / "runs/check/evaluation/evaluation.md").read_text() in done.stdout

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("cssta").experiment_id])
    for key in ("cssta_psnr", "telea_hole_psnr", "videos", "failed"):
        assert run.data.metrics[key] == pytest.approx(content["metrics"][key])
    assert (run.data.metrics["videos"], run.data.metrics["failed"]) == (2, 1)
    assert run.data.tags["model"] == str(tiny_model)


def test_unknown_model_is_one_line(run_job, write_config, tmp_path: Path):
    done = run_job("evaluate", "--config", write_config({}), "--model", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr and "Traceback" not in done.stderr
