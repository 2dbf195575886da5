"""The whole job on real footage: a few steps per stage, all looked at afterwards."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

from cssta.checkpoint import load_model
from cssta.masks import freeform_masks
from cssta.video import probe, read_frames
from pipelines.config import JobConfig
from pipelines.registry import resolve
from pipelines.train_all import TrainSummary, train_all

pytestmark = pytest.mark.cluster

TRAINING = ("autoeval_0000", "autoeval_0001", "autoeval_0002", "autoeval_0005", "anyv2v_0619")
COMPLETED = ("anyv2v_0612", "anyv2v_0618")
EVALUATED = ("dog", "libby")
STEPS = {"im2im": 15, "inpainter": 60, "temporal": 10}
LOG_EVERY = 5


@dataclass(frozen=True)
class Job:
    """A finished job, and what it said meanwhile."""

    cfg: JobConfig
    summary: TrainSummary
    said: tuple[str, ...]
    client: MlflowClient

    def stage_run(self, name: str):
        experiment = self.client.get_experiment_by_name("cssta").experiment_id
        tags = f"tags.`mlflow.parentRunId` = '{self.summary.run_id}' and tags.stage = '{name}'"
        (run,) = self.client.search_runs([experiment], tags)
        return run


@pytest.fixture(scope="module")
def job(ray_cluster, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("real-footage")
    for kind, names in (("train", TRAINING), ("complete", COMPLETED)):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / f"{name}.mp4").symlink_to(shared_dir / "clips" / f"{name}.mp4")
    (folder / "train" / "notes.mp4").write_text("this is no video")
    beginning = (shared_dir / "clips" / "autoeval_0006.mp4").read_bytes()[:4000]
    (folder / "train" / "truncated.mp4").write_bytes(beginning)
    (folder / "evaluate").mkdir()
    for name in EVALUATED:
        (folder / "evaluate" / name).symlink_to(shared_dir / "davis/JPEGImages/480p" / name)
    shared = {"learning_rate": 1e-3, "log_every": LOG_EVERY, "validate_every": 1000}
    cfg = JobConfig.parse(
        {
            "name": "real",
            "data": {
                "videos": str(folder / "train"),
                "height": 64,
                "width": 64,
                "references": 2,
                "clips_per_epoch": 16,
                # Holes of about one size: the loss is mostly what happens in them.
                "masks": {"ratio": [0.2, 0.25]},
            },
            "model": {"size": "tiny"},
            "stages": {name: {"steps": steps, **shared} for name, steps in STEPS.items()},
            "cluster": {"storage": str(folder / "runs"), "use_gpu": False},
            "evaluate": {"videos": str(folder / "evaluate"), "clips": 2, "max_frames": 5},
            "inference": {
                "videos": str(folder / "complete"),
                "output": str(folder / "completed"),
            },
        }
    )
    said: list[str] = []
    summary = train_all(cfg, say=said.append)
    return Job(cfg, summary, tuple(said), MlflowClient(summary.tracking_uri, summary.tracking_uri))


@pytest.mark.parametrize("stage", STEPS)
def test_every_loss_is_finite_at_every_logged_step(job: Job, stage: str):
    run = job.stage_run(stage)
    assert run.info.status == "FINISHED"
    losses = [key for key in run.data.metrics if key.startswith("loss")]
    assert len(losses) >= 3 and "loss" in losses
    for key in losses:
        history = job.client.get_metric_history(run.info.run_id, key)
        steps = sorted(point.step for point in history)
        assert steps == list(range(LOG_EVERY, STEPS[stage] + 1, LOG_EVERY)), key
        assert all(math.isfinite(point.value) for point in history), key
    assert run.data.metrics["skipped_steps"] == 0
    assert run.data.params["steps"] == str(STEPS[stage])


def test_the_inpainters_loss_falls(job: Job):
    run = job.stage_run("inpainter")
    history = job.client.get_metric_history(run.info.run_id, "loss")
    losses = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4]), losses


def test_a_validation_picture_is_kept_of_every_stage(job: Job, tmp_path: Path):
    for stage, steps in STEPS.items():
        name = f"pictures/step-{steps:06d}/validation.png"
        path = job.client.download_artifacts(job.stage_run(stage).info.run_id, name, str(tmp_path))
        assert cv2.imread(path).shape == (3 * 64, 3 * 64, 3)


def test_bad_files_are_counted_and_named(job: Job):
    assert {Path(bad.uri).name: bad.reason for bad in job.summary.rejected} == {
        "notes.mp4": "unreadable",
        "truncated.mp4": "truncated",
    }
    for text in (job.summary.text(), "\n".join(job.said)):
        assert "notes.mp4" in text and "truncated.mp4" in text
    run = job.client.get_run(job.summary.run_id)
    assert run.data.metrics["videos_rejected"] == 2
    assert "5 videos" in "\n".join(job.said)


def test_the_registry_holds_the_model_under_its_alias(job: Job, tmp_path: Path):
    import mlflow

    version = job.client.get_model_version_by_alias("cssta", "champion")
    assert str(version.version) == job.summary.model.version == "1"
    assert version.run_id == job.summary.run_id
    mlflow.set_tracking_uri(job.summary.tracking_uri)
    try:
        info = mlflow.models.get_model_info("models:/cssta@champion")
    finally:
        mlflow.set_tracking_uri(None)
    assert info.signature.inputs.input_names() == ["frames", "masks"]
    folder, _ = resolve("models:/cssta@champion", job.summary.tracking_uri, tmp_path)
    model = load_model(folder)
    assert model.im2im is not None and model.temporal is not None


def test_the_evaluation_is_of_the_davis_sequences(job: Job, tmp_path: Path):
    run_id = job.summary.run_id
    path = job.client.download_artifacts(run_id, "evaluation.json", str(tmp_path))
    evaluation = json.loads(Path(path).read_text())
    assert [video["video"] for video in evaluation["videos"]] == list(EVALUATED)
    metrics = job.client.get_run(run_id).data.metrics
    for method in ("cssta", "telea"):
        assert 5 < metrics[f"{method}_hole_psnr"] < metrics[f"{method}_psnr"] < 60
        assert 0 < metrics[f"{method}_ssim"] < 1
    assert metrics == metrics | job.summary.metrics


@pytest.mark.parametrize("name", COMPLETED)
def test_completed_videos_keep_size_length_rate_and_what_was_visible(job: Job, name: str):
    source = Path(job.cfg.inference.videos) / f"{name}.mp4"
    output = Path(job.cfg.inference.output) / f"{name}.mp4"
    wanted, found = probe(source), probe(output)
    assert (found.frames, found.height, found.width) == (wanted.frames, wanted.height, wanted.width)
    assert found.fps == wanted.fps
    before, after = read_frames(source), read_frames(output)
    assert after.shape == before.shape
    (outcome,) = [o for o in job.summary.batch.outcomes if o.name == output.name]
    assert (outcome.status, outcome.frames) == ("done", wanted.frames)
    assert 0.1 < outcome.hole_ratio < 0.35
    holes = drawn_holes(output, job.cfg, before.shape[:3])
    assert outcome.hole_ratio == pytest.approx(holes.mean())
    error = np.abs(after.astype(int) - before).mean(axis=-1)
    away = ~cv2.dilate(holes.transpose(1, 2, 0).astype(np.uint8), np.ones((9, 9))).astype(bool)
    # What was visible only went through the coding, which smears a little around the holes; what
    # was hidden was made up, by a model that has hardly been trained.
    assert error[away.transpose(2, 0, 1)].mean() < 3
    assert error[holes].mean() > 10


def drawn_holes(output: Path, cfg: JobConfig, shape: tuple[int, int, int]) -> np.ndarray:
    """The masks of a completed video, drawn again from the seed in its record."""
    drawn = json.loads(Path(f"{output}.json").read_text())["identity"]["mask"]
    rng = np.random.default_rng(drawn["seed"])
    return freeform_masks(rng, *shape, ratio=cfg.data.masks.ratio)


def test_the_batch_has_contact_sheets_and_a_summary(job: Job):
    batch = job.summary.batch
    assert (batch.count("done"), batch.count("failed")) == (2, 0)
    for sheet in batch.sheets:
        assert cv2.imread(sheet) is not None
    assert len(batch.sheets) == 2
    document = json.loads((Path(job.cfg.cluster.storage) / "real" / "summary.json").read_text())
    assert "registered: models:/cssta/1" in document["summary"]


def test_the_same_job_again_reuses_everything(job: Job):
    said: list[str] = []
    again = train_all(job.cfg, say=said.append)
    assert all(stage.reused for stage in again.stages)
    assert again.model == job.summary.model and again.metrics == job.summary.metrics
    assert again.batch.count("skipped") == 2
    assert len(job.client.search_model_versions("name='cssta'")) == 1
    assert job.client.get_run(again.run_id).info.status == "FINISHED"
