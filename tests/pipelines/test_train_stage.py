"""A stage on the cluster: logged, named, and its failures told (cut off: `test_train_kills`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.train import ControllerError, WorkerGroupError
from safetensors.torch import load as load_tensors

from cssta.config import ModelConfig
from pipelines import train_stage as module
from pipelines.config import JobConfig
from pipelines.failures import Failures
from pipelines.manifest import Manifest, Rejected, probe_video
from pipelines.tracking import JobRun
from pipelines.train_stage import StageError, Videos, train_stage
from tests.pipelines.kill_train import NoRun
from tests.pipelines.plain_training import train_plain

TINY = ModelConfig.preset("tiny")
STEPS = 80


def make_config(videos: Path, storage: Path, tracking: str | None = None) -> JobConfig:
    stage = {"steps": STEPS, "log_every": 5, "checkpoint_every": 5, "validate_every": STEPS}
    content = {
        "name": "cut-off",
        "tracking": {"uri": tracking},
        "data": {
            "videos": str(videos),
            "height": 32,
            "width": 32,
            "references": 1,
            "clips_per_epoch": 16,
        },
        "model": {"size": "tiny"},
        "stages": {"im2im": stage},
        "cluster": {"storage": str(storage), "use_gpu": False},
    }
    return JobConfig.parse(content)


@pytest.fixture(scope="module")
def manifest(video_folder: Path) -> Manifest:
    rows = [
        SimpleNamespace(uri=str(video_folder / f"{name}.mp4"), frames=12, height=48, width=64)
        for name in "abc"
    ]
    return Manifest(tuple(rows))


def test_a_checkpoint_without_weights_is_an_error(tmp_path):
    (tmp_path / "network.safetensors").write_bytes(b"plain")
    assert module.exported_weights(str(tmp_path)) == b"plain"
    (tmp_path / "average.safetensors").write_bytes(b"average")
    assert module.exported_weights(str(tmp_path)) == b"average"
    with pytest.raises(StageError, match=r"network\.safetensors"):
        module.exported_weights(str(tmp_path / "none"))


@pytest.mark.cluster
def test_two_workers_train_as_one_with_all_their_clips(ray_cluster, video_folder, tmp_path):
    content = make_config(video_folder, tmp_path / "runs").to_dict()
    how = {"steps": 3, "learning_rate": 1e-3, "targets": 1, "reference_dropout": 0.5}
    content["stages"]["inpainter"] = how | {"ema": 0.9}
    content["cluster"] |= {"workers": 2}
    cfg = JobConfig.parse(content)
    rows = tuple(probe_video(str(path)) for path in sorted(video_folder.glob("*.mp4")))
    videos = Videos(Manifest(rows), Manifest(()))
    result = train_stage(cfg, "inpainter", TINY, {}, videos, NoRun(), say=lambda line: None)
    alone = train_plain(cfg, "inpainter", TINY, videos.training).exported.state_dict()
    together = load_tensors(result.weights)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        # (Adam divides by the gradients' size: where that is nearly 0, rounding counts.)
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=2e-4, msg=key)


class Trainer:
    """Stands for Ray Train; `fits`: what is done by one fit after the other."""

    def __init__(self, monkeypatch, fits: list) -> None:
        self.fits, self.settings = fits, []
        monkeypatch.setattr(module, "TorchTrainer", self._make)

    def _make(self, *_, train_loop_config, run_config, **__) -> SimpleNamespace:
        self.settings.append(run_config)
        checkpoints = train_loop_config["task"].checkpoints
        return SimpleNamespace(fit=lambda: self.fits.pop(0)(checkpoints))


def trained_to(step: int, folder: Path, error: Exception | None = None):
    """A fit that keeps a checkpoint of that step, and then fails unless there is no error."""

    def fit(checkpoints):
        folder.mkdir(exist_ok=True)
        (folder / "network.safetensors").write_bytes(b"network" * step)
        checkpoints.save(folder, step, {"loss": 1 / step})
        if error is not None:
            raise error
        return SimpleNamespace(return_value=None)

    return fit


def failing(error: Exception):
    def fit(checkpoints):
        raise error

    return fit


LOST = WorkerGroupError("[Rank 0]:\nActorDiedError: The node was preempted", {})


@pytest.mark.cluster
def test_lost_workers_end_a_stage_only_where_nothing_new_is_kept(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest
):
    content = make_config(video_folder, tmp_path / "runs").to_dict()
    content["cluster"]["restarts"] = 2
    cfg, videos, said = JobConfig.parse(content), Videos(manifest, Manifest(())), []
    lost = [trained_to(step, tmp_path / "s", LOST) for step in range(5, STEPS, 5)]
    trainer = Trainer(monkeypatch, [*lost, failing(LOST)])
    with pytest.raises(StageError) as caught:
        train_stage(cfg, "im2im", TINY, {}, videos, NoRun(), said.append)
    assert str(caught.value) == (
        "stage im2im failed: ActorDiedError: The node was preempted; 2 restarts brought it no "
        "further than step 75 (cluster.restarts)"
    )
    assert not trainer.fits and len(trainer.settings) == 16 and len(said) == 15
    assert {settings.failure_config.max_failures for settings in trainer.settings} == {2}
    # One that Ray itself would not start again counts as one.
    unlucky = ControllerError(RuntimeError("The actor died"))
    trainer.fits = [failing(unlucky)] * 3
    with pytest.raises(StageError, match="The actor died; 2 restarts"):
        train_stage(cfg, "im2im", TINY, {}, videos, NoRun(), said.append)
    assert not trainer.fits
    # What is no fault of workers is not tried again.
    trainer.fits = [failing(RuntimeError("no cluster"))]
    with pytest.raises(StageError, match="no cluster"):
        train_stage(cfg, "im2im", TINY, {}, videos, NoRun(), said.append)
    assert len(trainer.settings) == 20


@pytest.mark.cluster
def test_a_result_that_is_not_as_it_was_kept_is_made_again_or_named(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest
):
    cfg = make_config(video_folder, tmp_path / "runs")
    said: list[str] = []

    def train():
        return train_stage(
            cfg, "im2im", TINY, {}, Videos(manifest, Manifest(())), NoRun(), said.append
        )

    Trainer(monkeypatch, [trained_to(STEPS, tmp_path / "s")])  # (trains no more than once)
    first = train()
    assert not first.reused and train().reused
    (folder,) = (tmp_path / "runs" / "cut-off" / "stages").iterdir()
    for name, content in (("im2im.safetensors", b"x"), ("result.json", b'{"metrics')):
        (folder / name).write_bytes(content)
        again = train()
        assert again.weights == first.weights and again.metrics == first.metrics
        assert not again.reused and train().reused
        assert len(said) == 1 and str(folder / name) in said.pop()
    (folder / "im2im.safetensors").write_bytes(b"x")
    shutil.rmtree(folder / f"step-{STEPS:08d}")
    with pytest.raises(StageError, match=rf"im2im\.safetensors: is not .* or remove {folder}"):
        train()


@pytest.mark.cluster
def test_what_makes_a_stage_start_anew_is_told_and_held_out_files_are_counted(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest
):
    cfg, said = make_config(video_folder, tmp_path / "runs"), []
    (tmp_path / "bad.mp4").write_text("no video")
    good = manifest.videos[0]
    bad = SimpleNamespace(**{**vars(good), "uri": str(tmp_path / "bad.mp4")})
    failures = Failures()

    def train(videos: Manifest):
        held_out = Manifest((good, bad))
        both = Videos(videos, held_out, failures)
        return train_stage(cfg, "im2im", TINY, {}, both, NoRun(), said.append)

    Trainer(monkeypatch, [trained_to(STEPS, tmp_path / "s")] * 2)
    train(Manifest(manifest.videos[:2]))
    assert not said
    assert [(one.uri, one.reason) for one in failures.list()] == [(bad.uri, "unreadable")]
    assert not train(manifest).reused
    (line,) = said
    assert "stage im2im starts at step 0" in line and f"at step {STEPS}" in line
    assert "1 videos more (c.mp4)" in line
    assert train(manifest).reused and len(said) == 1
    too_many = Videos(manifest, Manifest((good, bad)), Failures(limit=0))
    other = cfg.model_copy(update={"seed": 1})
    with pytest.raises(StageError, match=r"stage im2im stopped: 1 files failed.*bad\.mp4"):
        train_stage(other, "im2im", TINY, {}, too_many, NoRun(), said.append)


@pytest.mark.cluster
def test_too_many_bad_files_end_a_stage_that_ray_would_restart(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest
):
    cfg = make_config(video_folder, tmp_path / "runs")
    assert cfg.cluster.restarts > 1
    failures = Failures(limit=0)

    def worker(config):
        with open(tmp_path / "started", "a") as started:
            started.write("x")
        failures.report(Rejected("/v/bad.mp4", "unreadable", "/v/bad.mp4: went bad"))

    monkeypatch.setattr(module, "train_worker", worker)
    monkeypatch.setattr(module, "stage_streams", lambda *_: {})
    videos = Videos(manifest, Manifest(()), failures)
    with pytest.raises(StageError, match=r"stage im2im stopped: 1 files failed.*went bad"):
        train_stage(cfg, "im2im", TINY, {}, videos, NoRun(), lambda line: None)
    assert (tmp_path / "started").read_text() == "x"


@pytest.mark.cluster
def test_training_that_fails_for_good_names_the_stage_and_the_cause(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest, mlflow_uri
):
    class Trainer:
        def __init__(self, *_, **__):
            pass

        def fit(self):  # as Ray Train puts it
            raise RuntimeError(
                "Training failed due to worker errors:\n[Rank 0 Error Snippet]:\n"
                "Traceback (most recent call last):\n  File ...\nRuntimeError: no clip at all\n"
            )

    monkeypatch.setattr(module, "TorchTrainer", Trainer)
    cfg = make_config(video_folder, tmp_path / "runs", mlflow_uri)
    run = JobRun.start(cfg).stage("im2im")
    with pytest.raises(StageError) as caught:
        train_stage(cfg, "im2im", TINY, {}, Videos(manifest, Manifest(())), run)
    assert str(caught.value) == "stage im2im failed: RuntimeError: no clip at all"
    assert "worker errors" in str(caught.value.__cause__)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("step 5: 21 steps in a row were bad", "stage im2im was given up at step 5: 21 steps"),
        (None, "stage im2im left no checkpoint .* a folder that all nodes share"),
    ],
)
def test_training_that_came_to_nothing_is_told(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest, mlflow_uri, returned, told
):
    class Trainer:
        def __init__(self, *_, **__):
            pass

        def fit(self):
            return SimpleNamespace(return_value=returned)

    monkeypatch.setattr(module, "TorchTrainer", Trainer)
    cfg = make_config(video_folder, tmp_path / "runs", mlflow_uri)
    run = JobRun.start(cfg).stage("im2im")
    with pytest.raises(StageError, match=told):
        train_stage(cfg, "im2im", TINY, {}, Videos(manifest, Manifest(())), run)
