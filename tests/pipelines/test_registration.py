"""What was evaluated and registered is known again: this model, these scores, in this registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from cssta.checkpoint import save_model
from cssta.config import ModelConfig
from cssta.inpainting import InpaintingNetwork
from cssta.video import probe
from pipelines import registration
from pipelines.config import JobConfig
from pipelines.eval_summary import METHODS, METRICS, ClipScore, EvalSummary
from pipelines.manifest import Manifest, VideoRow
from pipelines.registration import evaluate_and_register, footage_identity, model_identity
from pipelines.registry import ModelVersionInfo
from pipelines.tracking import JobRun
from pipelines.train_stage import Videos

TINY = ModelConfig.preset("tiny")


def manifest(folder: Path, names: str, digest: str = "") -> Manifest:
    infos = [probe(folder / f"{name}.mp4") for name in names]
    rows = tuple(VideoRow(str(i.path), i.frames, i.height, i.width, i.fps) for i in infos)
    return Manifest(rows, digest=digest)


@pytest.fixture
def footage(tmp_path: Path, video_folder: Path) -> Path:
    return shutil.copytree(video_folder, tmp_path / "videos")


@pytest.fixture
def videos(footage: Path) -> Videos:
    return Videos(manifest(footage, "abc", "training"), manifest(footage, "de"))


@pytest.fixture
def job(monkeypatch, tmp_path: Path, footage: Path, videos: Videos, tiny_model: Path):
    """Evaluates and registers with an MLflow server; the scores are stand-ins, counted."""
    scores = {f"{m}_{k}": 20.0 for m in METHODS for k in METRICS}
    score = ClipScore("d.mp4", 4, 4, 0.2, 1.0, scores)
    result = EvalSummary((score,), (), 32, 32, "freeform", True)
    evaluated: list[Path] = []
    monkeypatch.setattr(
        registration,
        "evaluate_model",
        lambda cfg, folder, manifest: evaluated.append(folder) or result,
    )

    def register(uri: str, folder: Path = tiny_model, **sections) -> tuple[ModelVersionInfo, int]:
        """The version, and how often anything was evaluated by now."""
        cfg = config(footage, tmp_path, tracking={"uri": uri}, **sections)
        with JobRun.start(cfg) as run:
            version, _ = evaluate_and_register(cfg, folder, videos, run, lambda line: None)
        return version, len(evaluated)

    return register


def config(videos: Path, tmp_path: Path, **sections) -> JobConfig:
    size = {"height": 32, "width": 32}
    data = {"videos": str(videos), **size, **sections.pop("data", {})}
    cluster = {"storage": str(tmp_path / "runs")}
    return JobConfig.parse({"name": "job", "data": data, "cluster": cluster, **sections})


def test_another_servers_version_of_that_number_is_not_ours(
    job: Callable, mlflow_uri: str, mlflow_database: Path, tmp_path: Path
):
    ours, _ = job(mlflow_uri)
    assert job(mlflow_uri) == (ours, 1)
    # Another server that has a model of that name and number, of somebody else's weights.
    other = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'other.db')}"
    torch.manual_seed(7)
    strange = save_model(tmp_path / "strange", TINY, InpaintingNetwork(TINY))
    elsewhere = {"cluster": {"storage": str(tmp_path / "elsewhere")}}
    stranger, _ = job(other, strange, **elsewhere)
    assert stranger == ours  # (models:/cssta/1 on both)
    moved, evaluated = job(other)
    assert moved.version == "2" and evaluated == 3
    found = MlflowClient(other, other).get_model_version("cssta", "2")
    assert found.tags["cssta_psnr"] == "20"


def test_the_same_registry_is_known_at_another_address(job: Callable, mlflow_uri: str):
    """As the demonstration's, whose server takes any free port."""
    version, _ = job(mlflow_uri)
    assert job(mlflow_uri.replace("sqlite:///", "sqlite:////")) == (version, 1)


def test_scores_of_footage_that_was_replaced_are_not_used_again(
    job: Callable, mlflow_uri: str, footage: Path
):
    _, before = job(mlflow_uri)
    shutil.copy(footage / "a.mp4", footage / "d.mp4")
    version, evaluated = job(mlflow_uri)
    assert evaluated == before + 1 and version.version == "2"
    assert job(mlflow_uri) == (version, evaluated)


def test_every_part_of_the_footage_counts(footage: Path, videos: Videos, tmp_path: Path):
    own = shutil.copytree(footage, tmp_path / "own")
    cases = {
        "held out": (config(footage, tmp_path), footage / "e.mp4"),
        "named": (config(footage, tmp_path, evaluate={"videos": str(own)}), own / "c.mp4"),
    }
    for what, (cfg, file) in cases.items():
        before = footage_identity(cfg, videos)
        assert footage_identity(cfg, videos) == before, what
        shutil.copy(footage / "a.mp4", file)
        assert footage_identity(cfg, videos) != before, what
    masks = tmp_path / "masks" / "cat"
    masks.mkdir(parents=True)
    (masks / "0.png").write_bytes(b"one")
    drawn = {"kind": "mixed", "objects": str(masks.parent)}
    cfg = config(footage, tmp_path, data={"masks": drawn})
    before = footage_identity(cfg, videos)
    (masks / "0.png").write_bytes(b"two")
    assert footage_identity(cfg, videos) != before
    # A prepared folder's digest is of all its frames; the videos need not be there any more.
    prepared = config(footage, tmp_path, data={"prepared": "/prepared"})
    shutil.rmtree(footage)
    assert footage_identity(prepared, videos) == "training"
    none_held_out = replace(videos, held_out=Manifest(()))
    assert footage_identity(config(footage, tmp_path), none_held_out) == "training"


def test_the_identity_depends_on_weights_settings_and_footage(tiny_model: Path, tmp_path: Path):
    def identity(folder: Path = tiny_model, footage: str = "a", **sections) -> str:
        return model_identity(config(Path("/v"), tmp_path, **sections), folder, footage)

    assert identity() == identity()
    other = save_model(tmp_path / "other", replace(TINY, width=14), InpaintingNetwork(TINY))
    assert identity(folder=other) != identity()
    assert identity(footage="b") != identity()
    assert identity(evaluate={"clips": 1}) != identity()
    assert identity(registry={"alias": "other"}) != identity()
    assert identity(inference={"actors": 2}) == identity()
