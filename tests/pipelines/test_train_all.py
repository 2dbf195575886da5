"""What the main job hands from part to part. Training and evaluation are stand-ins here; the real
ones run in tests/jobs/test_train_all.py and tests/jobs/test_real_footage.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from cssta.checkpoint import save_model
from cssta.config import ModelConfig
from cssta.evaluation.provenance import describe_model
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.temporal import TemporalNetwork
from cssta.video import probe, read_frames, write_video
from pipelines import registration
from pipelines import train_all as module
from pipelines.batch_plan import BatchError
from pipelines.config import JobConfig
from pipelines.eval_summary import ClipScore, EvalSummary
from pipelines.failures import TooManyFailuresError
from pipelines.manifest import Rejected
from pipelines.registry import resolve
from pipelines.stage_identity import decisive_parts
from pipelines.storage import EmptyBucketError, StorageError
from pipelines.train_all import find_videos, train_all
from pipelines.train_stage import STAGES, StageError, StageResult

TINY = ModelConfig.preset("tiny")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A whole model: each network of it stands for a stage's result."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder, TINY, InpaintingNetwork(TINY), TemporalNetwork(TINY), Im2Im(TINY))


@pytest.fixture
def trained(monkeypatch, model_folder: Path) -> dict[str, dict]:
    """By stage, the weights that it was given; nothing is trained or evaluated."""
    given: dict[str, dict] = {}

    def train_stage(cfg, name, model, weights, videos, run, say):
        assert model == TINY
        given[name] = dict(weights)
        content = (model_folder / f"{name}.safetensors").read_bytes()
        metrics = {"loss": 1.5, "validation_hole_psnr": 20.25}
        if name == "inpainter":
            videos.failures.report(Rejected("/v/late.mp4", "unreadable", "/v/late.mp4: went bad"))
        return StageResult(name, "0" * 12, content, metrics, 61.4, reused=name == "im2im")

    scores = {f"{m}_{k}": 20.0 for m in ("cssta", "telea") for k in ("psnr", "ssim", "hole_psnr")}
    score = ClipScore("a.mp4", 4, 4, 0.2, 1.0, scores)
    result = EvalSummary((score,), (), 32, 32, "freeform", True)
    monkeypatch.setattr(module, "train_stage", train_stage)
    monkeypatch.setattr(registration, "evaluate_model", lambda cfg, folder, manifest: result)
    return given


@pytest.fixture
def make_config(tmp_path: Path, video_folder: Path, mlflow_uri: str):
    def make(**changes) -> JobConfig:
        content = {
            "name": "job",
            "data": {"videos": str(video_folder), "height": 32, "width": 32},
            "model": {"size": "tiny"},
            "cluster": {"storage": str(tmp_path / "runs")},
            "tracking": {"uri": mlflow_uri},
        }
        return JobConfig.parse(content | changes)

    return make


@pytest.mark.cluster
def test_stages_in_order_then_one_registered_version(
    ray_cluster, trained, make_config, damaged_folder, mlflow_uri, model_folder, tmp_path
):
    data = {"videos": str(damaged_folder), "height": 32, "width": 32, "max_failures": 5}
    cfg = make_config(data=data)
    said: list[str] = []
    summary = train_all(cfg, say=said.append)
    weights = {name: (model_folder / f"{name}.safetensors").read_bytes() for name in STAGES}
    assert list(trained) == list(STAGES)
    assert trained["im2im"] == {}
    assert trained["inpainter"] == {"im2im": weights["im2im"]}
    assert trained["temporal"] == {key: weights[key] for key in ("im2im", "inpainter")}
    # Files that were bad from the start and those that failed later are both named.
    bad = {Path(one.uri).name for one in summary.rejected}
    assert bad == {"text.mp4", "nothing.mp4", "beginning.mp4", "noise.mov", "late.mp4"}
    text = summary.text()
    assert all(name in text for name in bad)
    assert "stage im2im: reused, loss 1.500, hole PSNR 20.25 dB" in text
    assert "stage inpainter: 61 s" in text
    assert "held out, telea: PSNR 20.00 dB" in text
    assert "models:/cssta/1" in text and "models:/cssta@champion" in text
    assert summary.batch is None and "no videos to complete were configured" in text
    written = json.loads((tmp_path / "runs/job/summary.json").read_text())
    assert written["metrics"] == summary.metrics

    client = MlflowClient(mlflow_uri, mlflow_uri)
    experiment = client.get_experiment_by_name("cssta").experiment_id
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{summary.run_id}'", order_by=["start_time"]
    )
    assert [run.data.tags["stage"] for run in children] == list(STAGES)
    parent = client.get_run(summary.run_id)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert parent.data.params["data.height"] == "32"
    assert parent.data.metrics["cssta_psnr"] == 20 and parent.data.metrics["videos_rejected"] == 5
    assert parent.data.tags["model_version"] == "models:/cssta/1"

    # What captions quote comes with the model.
    folder, _ = resolve("models:/cssta/1", mlflow_uri, tmp_path / "cache")
    told = describe_model(folder, "ours")
    assert "ours; training footage: damaged, 4 videos" in told and "time: im2im 61 s;" in told
    assert "steps: im2im 1,000; inpainter 1,000" in told and "of a short run" in told

    # The same weights are not registered twice, unless the version is gone.
    assert train_all(cfg, say=said.append).model == summary.model
    assert any("already evaluated and registered" in line for line in said)
    # Others, while it serves, are candidates.
    other = train_all(cfg.model_copy(update={"seed": 1}), say=said.append)
    assert "models:/cssta/2, also as models:/cssta@candidate" in other.text()
    assert "jobs/promote.py" in other.text()
    client.delete_model_version("cssta", "1")
    assert train_all(cfg, say=said.append).model.version == "3"


@pytest.mark.cluster
def test_other_footage_under_the_same_names_is_other_training(
    ray_cluster, make_config, video_folder, tmp_path
):
    copy = tmp_path / "videos"
    shutil.copytree(video_folder, copy)
    cfg = make_config(data={"videos": str(copy), "height": 32, "width": 32})

    def decisive() -> dict:
        videos = find_videos(cfg, say=lambda line: None)
        return decisive_parts(cfg, "im2im", TINY, {}, videos.training)

    before = decisive()
    assert decisive() == before
    for name in "abcde":  # (some one is held out, and does not decide)
        frames = read_frames(copy / f"{name}.mp4", range(probe(copy / f"{name}.mp4").frames))
        write_video(copy / f"{name}.mp4", 255 - frames, 24)
    assert decisive() != before


@pytest.mark.cluster
def test_starts_from_a_model_whose_later_networks_no_stage_sees_early(
    ray_cluster, trained, make_config, model_folder
):
    train_all(make_config(model={"size": "base", "init": str(model_folder)}))
    assert [sorted(trained[name]) for name in STAGES] == [
        ["im2im"],
        ["im2im", "inpainter"],
        ["im2im", "inpainter", "temporal"],
    ]


@pytest.mark.cluster
def test_a_failed_stage_leaves_failed_runs_and_no_model(
    ray_cluster, trained, make_config, mlflow_uri, monkeypatch
):
    def fail(cfg, name, *_):
        raise StageError(f"stage {name} failed: out of memory")

    monkeypatch.setattr(module, "train_stage", fail)
    with pytest.raises(StageError, match="im2im"):
        train_all(make_config())
    client = MlflowClient(mlflow_uri, mlflow_uri)
    runs = client.search_runs([client.get_experiment_by_name("cssta").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "job": "FAILED",
        "im2im": "FAILED",
    }
    assert all("out of memory" in run.data.tags["error"] for run in runs)
    assert not client.search_registered_models()


@pytest.mark.cluster
@pytest.mark.parametrize("section", ["data", "evaluate", "inference"])
def test_an_empty_bucket_is_told_before_anything_is_trained(
    ray_cluster, trained, make_config, tmp_path, section: str
):
    (tmp_path / "empty").mkdir()
    more = {"output": str(tmp_path / "completed")} if section == "inference" else {}
    cfg = make_config(**{section: {"videos": str(tmp_path / "empty"), **more}})
    with pytest.raises(EmptyBucketError, match=str(tmp_path / "empty")):
        train_all(cfg)
    cfg = make_config(**{section: {"videos": str(tmp_path / "absent"), **more}})
    with pytest.raises(StorageError, match="does not exist"):
        train_all(cfg)
    assert not trained


@pytest.mark.cluster
def test_what_could_not_be_completed_is_told_before_anything_is_trained(
    ray_cluster, trained, make_config, video_folder, tmp_path
):
    videos = str(video_folder)
    (tmp_path / "empty").mkdir()
    for wrong, words in (
        ({"output": videos}, r"inference\.output .* holds inference\.videos"),
        ({"output": str(video_folder.parent)}, r"inference\.output .* holds inference\.videos"),
        ({"masks": str(tmp_path / "absent")}, r"inference\.masks .*absent"),
        ({"masks": str(tmp_path / "empty")}, r"inference\.masks .*empty"),
    ):
        inference = {"videos": videos, "output": str(tmp_path / "completed"), **wrong}
        with pytest.raises(BatchError, match=words):
            train_all(make_config(inference=inference))
    assert not trained


def test_too_many_bad_files_end_the_job_before_it_trains(ray_cluster, make_config, damaged_folder):
    data = {"videos": str(damaged_folder), "height": 32, "width": 32, "max_failures": 3}
    with pytest.raises(TooManyFailuresError, match=r"4 files failed.*allows 3: .*beginning\.mp4"):
        module.find_videos(make_config(data=data), say=lambda line: None)
