"""A worker's loop, run in this process against a stand-in for Ray Train's context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import ray.train
import ray.train.torch
import torch
from safetensors.numpy import load as load_tensors

from cssta.checkpoint import save_network
from cssta.config import ModelConfig
from cssta.losses import LossWeights
from cssta.training import DivergedError
from pipelines import train_loop
from pipelines.checkpoints import Checkpoints
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipRow
from pipelines.config import DataConfig, InpainterStageConfig, StageConfig
from pipelines.storage import StorageError
from pipelines.train_loop import PICTURE, StageTask, build_stage, train_worker

CPU = torch.device("cpu")
CONFIG = ModelConfig.preset("tiny")
CLIPS = np.random.default_rng(0).integers(0, 256, (12, 2, 32, 32, 3), np.uint8)


def make_task(name: str = "im2im", weights: dict | None = None, validation=(), **stage):
    data = {"videos": "/v", "height": 32, "width": 32, "references": 1, "clips_per_epoch": 4}
    section = InpainterStageConfig if name == "inpainter" else StageConfig
    targets = ("targets", "reference_dropout")
    if name != "inpainter":
        stage = {key: value for key, value in stage.items() if key not in targets}
    return StageTask(
        name=name,
        config=CONFIG,
        stage=section(**{"steps": 6, "log_every": 2, "checkpoint_every": 3} | stage),
        losses=LossWeights(),
        data=DataConfig(**data),
        seed=0,
        threads=1,
        weights=weights or {},
        validation=tuple(validation),
        checkpoints=Checkpoints("/nowhere"),
    )


class Shard:
    """One worker's planned stream, from clip number `first` on."""

    def __init__(self, clips: np.ndarray, first: int = 0) -> None:
        self.clips, self.first = clips, first

    def iter_batches(self, *, batch_size: int, **_):
        for start in range(0, len(self.clips), batch_size):
            frames = self.clips[start : start + batch_size]
            masks = np.zeros(frames.shape[:-1], bool)
            masks[:, :, 8:20, 8:20] = True
            numbers = self.first + start + np.arange(len(frames))
            yield {"frames": frames, "masks": masks, "number": numbers}


class Trainer:
    """Ray Train as one worker sees it; keeps what is reported."""

    def __init__(self, monkeypatch, folder: Path, clips: np.ndarray = CLIPS, rank: int = 0) -> None:
        self.checkpoints, self.reports = Checkpoints(str(folder / "run"), keep=100), []
        context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 1)
        monkeypatch.setattr(ray.train, "get_context", lambda: context)
        monkeypatch.setattr(ray.train, "get_dataset_shard", lambda name: Shard(clips))
        monkeypatch.setattr(ray.train, "report", self.report)
        monkeypatch.setattr(ray.train.torch, "get_device", lambda: CPU)

    def report(self, metrics: dict) -> None:
        self.reports.append((metrics, self.checkpoints.last_step() == metrics["step"]))

    def train(self, task: StageTask) -> str | None:
        return train_worker({"task": replace(task, checkpoints=self.checkpoints)})

    @property
    def latest(self) -> Path:
        return Path(self.checkpoints.folder(self.checkpoints.last_step()))

    @property
    def steps(self) -> list[int]:
        return [metrics["step"] for metrics, _ in self.reports]


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Number of the first clip of every batch that is trained on."""
    numbers: list[int] = []
    plain = train_loop.Im2ImStage.step

    def step(stage, batch):
        numbers.append(int(np.flatnonzero((batch["frames"][0] == CLIPS).all((1, 2, 3, 4)))[0]))
        return plain(stage, batch)

    monkeypatch.setattr(train_loop.Im2ImStage, "step", step)
    return numbers


def packed(network: torch.nn.Module, folder: Path) -> bytes:
    save_network(folder / "packed.safetensors", network)
    return (folder / "packed.safetensors").read_bytes()


def same_weights(network: torch.nn.Module, content: bytes) -> bool:
    tensors = load_tensors(content)
    state = network.state_dict()
    return state.keys() == tensors.keys() and all(
        np.array_equal(state[key].numpy(), tensors[key]) for key in tensors
    )


def test_reports_at_log_steps_and_keeps_what_is_needed_to_go_on(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=6, log_every=2, checkpoint_every=3))
    assert [(m["step"], kept) for m, kept in trainer.reports] == [
        (2, False),
        (3, True),
        (4, False),
        (6, True),
    ]
    for metrics, _ in trainer.reports:
        assert all(np.isfinite(value) for value in metrics.values())
        assert metrics["skipped_steps"] == 0 and 0 <= metrics["data_wait_share"] <= 1
        assert {"loss", "loss_discriminator", "learning_rate"} <= metrics.keys()
    files = {path.name for path in trainer.latest.iterdir()}
    assert {"network.safetensors", "average.safetensors", "state.safetensors"} <= files


def test_a_value_that_only_some_steps_have_is_averaged_over_those(monkeypatch, tmp_path):
    plain = train_loop.Im2ImStage.step

    def step(stage, batch):
        row = plain(stage, batch)
        return row | ({"now_and_then": float(stage.steps)} if stage.steps in (1, 3, 5) else {})

    monkeypatch.setattr(train_loop.Im2ImStage, "step", step)
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=7, log_every=4, checkpoint_every=6))
    assert [(m["step"], m.get("now_and_then")) for m, _ in trainer.reports] == [
        (4, 2.0),
        (6, 5.0),
        (7, None),
    ]


def test_a_skipped_step_does_not_hide_the_others_of_its_window(monkeypatch, tmp_path):
    plain = train_loop.Im2ImStage.step

    def step(stage, batch):
        bad = stage.steps in (1, 4, 5)
        row = plain(stage, batch)
        return row | {"loss": float("nan") if bad else float(stage.steps)}

    monkeypatch.setattr(train_loop.Im2ImStage, "step", step)
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=6, log_every=2, checkpoint_every=6))
    assert [(m["step"], m.get("loss")) for m, _ in trainer.reports] == [
        (2, 1.0),
        (4, 3.5),
        (6, None),
    ]
    record = (trainer.latest / "kept.json").read_text()
    assert "NaN" not in record, "JSON knows no NaN"


def test_goes_on_from_a_checkpoint_with_the_clips_not_seen_yet(monkeypatch, tmp_path, seen):
    trainer = Trainer(monkeypatch, tmp_path)
    schedule = {"decay": 0.5, "decay_every_epochs": 1}
    trainer.train(make_task(steps=3, **schedule))
    assert seen == [0, 1, 2]
    trainer.train(make_task(steps=7, **schedule))
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert trainer.steps == [2, 3, 4, 6, 7]
    assert trainer.reports[-1][0]["learning_rate"] == pytest.approx(1e-4 * 0.5)


def test_a_stream_that_starts_where_an_earlier_job_stopped(monkeypatch, tmp_path, seen):
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=3))
    later = Shard(CLIPS[3:], first=3)
    monkeypatch.setattr(ray.train, "get_dataset_shard", lambda name: later)
    trainer.train(make_task(steps=5))
    trainer.train(make_task(steps=7))  # as a restarted worker does
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert trainer.steps[-1] == 7


@pytest.mark.parametrize("name", ["im2im", "inpainter"])
def test_an_interrupted_run_ends_with_the_same_bytes(monkeypatch, tmp_path, name: str):
    """Killed after any number of steps beyond its last checkpoint, in a process with a past."""
    task = make_task(name, steps=7, checkpoint_every=2, targets=1, reference_dropout=0.5)
    peace = Trainer(monkeypatch, tmp_path / "peace")
    peace.train(task)
    trainer = Trainer(monkeypatch, tmp_path / "killed")
    cls = train_loop.Im2ImStage if name == "im2im" else train_loop.InpainterStage
    plain = cls.step
    for killed_at in (1, 3, 6):

        def step(stage, batch, killed_at=killed_at):
            if stage.steps == killed_at:
                raise KeyboardInterrupt
            return plain(stage, batch)

        monkeypatch.setattr(cls, "step", step)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(task)
        torch.rand(killed_at)
    monkeypatch.setattr(cls, "step", plain)
    trainer.train(task)
    ends = [{f.name: f.read_bytes() for f in t.latest.iterdir()} for t in (peace, trainer)]
    for end in ends:
        del end["kept.json"]  # (speeds are in it)
    assert len(ends[0]) >= 5 and ends[0].keys() == ends[1].keys()
    assert [key for key in ends[0] if ends[0][key] != ends[1][key]] == []


def test_training_that_diverges_is_given_up_and_not_started_again(monkeypatch, tmp_path):
    def step(stage, batch):
        stage.steps += 1
        if stage.steps == 3:
            raise DivergedError("21 steps in a row had a non-finite loss")
        return {"loss": 0.0}

    monkeypatch.setattr(train_loop.Im2ImStage, "step", step)
    trainer = Trainer(monkeypatch, tmp_path)
    assert trainer.train(make_task()) == "step 3: 21 steps in a row had a non-finite loss"


def test_storage_that_is_away_costs_a_checkpoint_and_not_the_run(monkeypatch, tmp_path, caplog):
    """Unless it is the last, which cannot be done without."""
    plain, away = Checkpoints.save, {3}

    def save(self, local, step, metrics):
        if step in away:
            raise StorageError("s3://bucket/run: gone", transient=True)
        plain(self, local, step, metrics)

    monkeypatch.setattr(Checkpoints, "save", save)
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=6))
    assert [(m["step"], kept) for m, kept in trainer.reports] == [
        (2, False),
        (3, False),
        (4, False),
        (6, True),
    ]
    assert "step 3 is not kept" in caplog.text
    away.add(8)
    with pytest.raises(StorageError, match="gone"):
        trainer.train(make_task(steps=8))


def test_only_the_first_worker_keeps_checkpoints(monkeypatch, tmp_path, video_folder):
    clips = [read_only_clip(video_folder / "a.mp4")]
    trainer = Trainer(monkeypatch, tmp_path, rank=1)
    trainer.train(make_task(steps=4, validation=clips))
    # Reports are a barrier: every rank has to make the same ones.
    assert trainer.steps == [2, 3, 4]
    assert not any(kept for _, kept in trainer.reports)
    assert "validation_psnr" not in trainer.reports[-1][0]


def read_only_clip(path: Path) -> dict[str, np.ndarray]:
    """As from an object store."""
    row = ClipRow(0, str(path), (0, 1), False, 0.5, 0.5, mask_seed=1, objects=None)
    clip = load_clip(row, make_task().data)
    for value in clip.values():
        value.setflags(write=False)
    return clip


@pytest.mark.filterwarnings("error:.*not writable")
def test_validates_held_out_clips_with_scores_and_a_picture(monkeypatch, tmp_path, video_folder):
    clips = [read_only_clip(video_folder / name) for name in ("a.mp4", "b.mp4")]
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=4, validate_every=2, validation=clips))
    validated = [m["step"] for m, _ in trainer.reports if "validation_psnr" in m]
    assert validated == [2, 4]
    scores = trainer.reports[-1][0]
    assert 0 < scores["validation_psnr"] < 60 and -1 <= scores["validation_ssim"] <= 1
    assert np.isfinite(scores["validation_hole_psnr"])
    assert scores["validation_clips"] == 2
    picture = cv2.imread(str(trainer.latest / PICTURE))
    assert picture.shape == (3 * 32, 2 * 32, 3)  # input, result, truth; two frames each


def test_without_any_clip_that_can_be_read_the_report_says_so(monkeypatch, tmp_path):
    trainer = Trainer(monkeypatch, tmp_path)
    trainer.train(make_task(steps=4, validation=()))
    scores = {k: v for k, v in trainer.reports[-1][0].items() if k.startswith("validation")}
    assert scores == {"validation_clips": 0}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_schedule_counts_epochs_over_all_workers(batch_size: int):
    ended: list[int] = []
    stage = SimpleNamespace(steps=0, end_epoch=lambda: ended.append(stage.steps))
    task = make_task(batch_size=batch_size)
    for step in range(1, 9):
        stage.steps = step
        train_loop._follow_schedule(task, stage, world=2)
    assert len(ended) == 8 * batch_size * 2 // task.data.clips_per_epoch


def test_each_stage_builds_on_those_before(tmp_path):
    names = ("im2im", "inpainter", "temporal")
    alone = {name: build_stage(make_task(name), CPU, lambda network: network) for name in names}
    assert {name: stage.name for name, stage in alone.items()} == {name: name for name in names}
    weights = {name: packed(stage.network, tmp_path) for name, stage in alone.items()}

    def build(name: str, *known: str):
        task = make_task(name, {key: weights[key] for key in known})
        return build_stage(task, CPU, lambda network: network)

    inpainter = build("inpainter", "im2im")
    assert same_weights(inpainter.teacher, weights["im2im"])
    teacher = inpainter.teacher
    for part in ("target_encoder", "attention_encoder", "decoder"):
        started = getattr(inpainter.network.refinement, part).state_dict()
        source = (teacher.decoder if part == "decoder" else teacher.encoder).state_dict()
        assert all(torch.equal(started[key], source[key]) for key in source), part
    again = build("inpainter", "im2im", "inpainter")
    assert same_weights(again.network, weights["inpainter"])
    temporal = build("temporal", *names)
    assert same_weights(temporal.inpainter, weights["inpainter"])
    assert same_weights(temporal.network, weights["temporal"])
    assert not any(p.requires_grad for p in temporal.inpainter.parameters())


def test_without_an_adversarial_loss_there_is_no_discriminator():
    task = make_task("inpainter")
    assert build_stage(task, CPU, lambda network: network).discriminator is not None
    task = replace(task, losses=LossWeights(lambda_g=0))
    assert build_stage(task, CPU, lambda network: network).discriminator is None
