"""`jobs/train_all.py`: submitted to a running cluster (see `whole_job`), again, from the shell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from cssta.video import probe
from pipelines.train_all import train_all
from pipelines.train_stage import STAGES

pytestmark = pytest.mark.cluster

STUDY_WEIGHTS = {"lambda_r": 2.5, "lambda_f": 0.125, "lambda_g": 0.0625, "delta": 50.0}


def test_a_submitted_job_trains_registers_and_completes(whole_job):
    output, cfg = whole_job.output, whole_job.cfg
    for name in STAGES:
        steps = getattr(cfg.stages, name).steps
        assert re.search(rf"^  {name} {steps}/{steps}  loss [-\d.]+", output, re.MULTILINE)
        assert re.search(rf"^stage {name}: \d+ s, loss", output, re.MULTILINE)
    for child in whole_job.client.search_runs(
        [whole_job.client.get_run(whole_job.run_id).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{whole_job.run_id}'",
    ):
        steps = getattr(cfg.stages, child.info.run_name).steps
        losses = whole_job.client.get_metric_history(child.info.run_id, "loss")
        assert max(point.step for point in losses) == steps
        scores = {"validation_psnr", "validation_ssim", "validation_hole_psnr"}
        assert scores <= child.data.metrics.keys()
        pictures = whole_job.client.list_artifacts(child.info.run_id, f"pictures/step-{steps:06d}")
        assert [Path(picture.path).name for picture in pictures] == ["validation.png"]
    assert "5 videos" in output and "rejected (unreadable)" in output and "notes.mp4" in output
    assert "registered: models:/cssta/1, also as models:/cssta@champion" in output
    assert "3 videos: 2 done" in output and "1 failed" in output
    (version,) = whole_job.client.search_model_versions("name='cssta'")
    assert (str(version.version), version.run_id) == ("1", whole_job.run_id)
    completed = [p for p in Path(cfg.inference.videos).iterdir() if p.name != "notes.mp4"]
    assert len(completed) == 2
    for source in completed:
        assert probe(Path(cfg.inference.output) / source.name).frames == probe(source).frames


def test_what_is_uploaded_is_small(whole_job, ray_node):
    (shipped,) = ray_node.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [path for path in shipped.rglob("*") if path.is_file()]
    assert shipped / "jobs/train_all.py" in files and shipped / "cssta/engine.py" in files
    assert not {".git", ".venv", "runs", "mlruns"} & {path.name for path in shipped.iterdir()}
    assert sum(path.stat().st_size for path in files) < 50e6  # (of 100 MiB that Ray takes)


def test_the_same_job_again_reuses_everything(whole_job, ray_cluster):
    """From another process and another copy of the code than the job that was submitted."""
    cfg, client = whole_job.cfg, whole_job.client
    before = json.loads((Path(cfg.cluster.storage) / cfg.name / "summary.json").read_text())
    said: list[str] = []
    again = train_all(cfg, say=said.append)
    assert [stage.name for stage in again.stages] == list(STAGES)
    assert all(stage.reused for stage in again.stages)
    for name in STAGES:
        assert f"stage {name}: reused" in said
    assert "already evaluated and registered: models:/cssta/1" in said
    assert again.model.uri == "models:/cssta/1" and again.metrics == before["metrics"]
    assert (again.batch.count("skipped"), again.batch.count("failed")) == (2, 1)
    assert "2 skipped" in again.text()
    assert len(client.search_model_versions("name='cssta'")) == 1
    assert again.run_id != whole_job.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"


def test_an_unknown_key_is_one_line_and_exit_code_1(run_job, write_config):
    config = write_config({"stages": {"im2im": {"step": 5}}})
    done = run_job("train_all", "--config", config)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in (str(config), "stages.im2im", "step", "learning_rate"):
        assert part in line


@pytest.fixture
def study(tmp_path: Path) -> str:
    """Name of a study in the job's storage whose second trial is the best."""
    (tmp_path / "runs").mkdir()
    made = optuna.create_study(
        study_name="weights", storage=f"sqlite:///{tmp_path}/runs/optuna.db", direction="maximize"
    )
    for score, params in ((10, {key: 1.0 for key in STUDY_WEIGHTS}), (20, STUDY_WEIGHTS)):
        made.enqueue_trial(params)
        trial = made.ask({k: optuna.distributions.FloatDistribution(0, 100) for k in params})
        made.tell(trial, score)
    return made.study_name


def test_best_of_takes_a_studys_weights(
    run_job, write_config, cluster_address, study, tmp_path: Path
):
    (tmp_path / "in").mkdir()  # without videos: what counts here comes before them
    config = write_config({})
    done = run_job("train_all", "--config", config, "--best-of", study, address=cluster_address)
    assert done.returncode == 1 and "holds no videos" in done.stderr
    assert "loss weights of study weights" in done.stdout and "lambda_r 2.5" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cssta").experiment_id])
    used = {key: float(run.data.params[f"losses.{key}"]) for key in STUDY_WEIGHTS}
    assert used == STUDY_WEIGHTS
    assert run.info.status == "FAILED"


def test_a_file_without_loss_weights_is_one_line(run_job, write_config, tmp_path: Path):
    config = write_config({})
    done = run_job("train_all", "--config", config, "--losses", config)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"error: {config}: is no file of loss weights" in line


def test_best_of_an_unknown_study_names_the_known(run_job, write_config, study):
    done = run_job("train_all", "--config", write_config({}), "--best-of", "others")
    assert done.returncode == 1
    assert "no study 'others'" in done.stderr and "weights" in done.stderr
    assert "Traceback" not in done.stderr
