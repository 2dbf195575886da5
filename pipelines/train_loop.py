"""What every worker of a training stage runs: a `cssta.training` stage over Ray Data batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import ray.train
import ray.train.torch
import torch

from cssta.checkpoint import load_network
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.metrics import psnr, ssim
from cssta.temporal import TemporalNetwork
from cssta.training import Im2ImStage, InpainterStage, Stage, TemporalStage
from cssta.video import VideoError
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipRow
from pipelines.config import DataConfig, StageConfig
from pipelines.stage_clips import worker_batches
from pipelines.stage_settings import stage_settings
from pipelines.storage import StorageError

PICTURE = "validation.png"
EXPORTED = "exported.safetensors"


@dataclass(frozen=True)
class StageTask:
    """All that a worker is told; sent once to each.

    `weights`: safetensors by network name; those of earlier stages are what this stage builds on,
    its own is where it starts.
    """

    name: str
    config: ModelConfig
    stage: StageConfig
    losses: LossWeights
    data: DataConfig
    seed: int
    threads: int
    weights: dict[str, bytes]
    validation: tuple[ClipRow, ...]


def train_worker(config: dict[str, StageTask]) -> None:
    """Train `task.stage.steps` steps, going on from the run's last checkpoint if there is one."""
    task = config["task"]
    torch.set_num_threads(task.threads)
    cv2.setNumThreads(1)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(task.seed)
    stage = build_stage(task, ray.train.torch.get_device(), _distributed(world))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            stage.restore(Path(folder))
    # From here on ranks draw apart (which frames of a clip are targets), resumed or not.
    torch.manual_seed(hash((task.seed, stage.steps, rank)) % 2**63)
    validation = _validation_batches(task) if rank == 0 else []
    _run(task, stage, rank, world, validation)


def _run(task: StageTask, stage: Stage, rank: int, world: int, validation: list[dict]) -> None:
    total = task.stage.steps
    recent: list[dict[str, float]] = []
    waited, since = 0.0, time.monotonic()
    batches = worker_batches(task, done=stage.steps)
    while stage.steps < total:
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        recent.append(stage.step(batch))
        _follow_schedule(task, stage, world)
        last = stage.steps == total
        validate = last or stage.steps % task.stage.validate_every == 0
        save = validate or stage.steps % task.stage.checkpoint_every == 0
        if not (save or stage.steps % task.stage.log_every == 0):
            continue
        elapsed = time.monotonic() - since
        metrics = _means(recent) | {
            "step": stage.steps,
            "learning_rate": stage.optimiser.learning_rate,
            "skipped_steps": stage.optimiser.skipped,
            "steps_per_second": len(recent) / elapsed,
            "data_wait_share": waited / elapsed,
        }
        if not save or rank != 0:
            ray.train.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                stage.save(folder)
                if validate and validation:
                    metrics |= _validate(stage, validation, folder)
                ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
        recent, waited, since = [], 0.0, time.monotonic()


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows that have it: some values are not taken at every step."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}


def build_stage(task: StageTask, device: torch.device, wrap: Callable) -> Stage:
    """The stage with the networks that it trains and those that it builds on."""
    config, settings = task.config, stage_settings(task.stage)

    def network(name: str, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        return _unpack(task.weights[name], build) if name in task.weights else build()

    common = (settings, task.losses, device)
    adversarial = task.losses.lambda_g > 0
    teacher = network("im2im", lambda: Im2Im(config))
    if task.name == "im2im":
        return Im2ImStage(config, teacher, *common, wrap=wrap, adversarial=adversarial)
    inpainter = network("inpainter", lambda: InpaintingNetwork(config))
    if task.name == "inpainter":
        if "inpainter" not in task.weights:
            inpainter.start_from(teacher)
        return InpainterStage(
            config, inpainter, *common, teacher=teacher, wrap=wrap, adversarial=adversarial
        )
    temporal = network("temporal", lambda: TemporalNetwork(config))
    return TemporalStage(config, temporal, *common, inpainter=inpainter, teacher=teacher, wrap=wrap)


def _unpack(content: bytes, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / EXPORTED
        path.write_bytes(content)
        return load_network(path, build)


def _distributed(world: int) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Wrap for data-parallel training; nothing to wrap where one worker trains alone."""
    if world == 1:
        return lambda network: network
    return ray.train.torch.prepare_model


def _follow_schedule(task: StageTask, stage: Stage, world: int) -> None:
    """End an epoch whenever all workers together have seen so many clips."""
    per_step = task.stage.batch_size * world
    epoch = stage.steps * per_step // task.data.clips_per_epoch
    for _ in range((stage.steps - 1) * per_step // task.data.clips_per_epoch, epoch):
        stage.end_epoch()


def _validation_batches(task: StageTask) -> list[dict[str, np.ndarray]]:
    batches = []
    for row in task.validation:
        try:
            clip = load_clip(row, task.data)
        except (VideoError, StorageError):
            continue  # (counted and named when the evaluation meets it)
        batches.append({key: clip[key][None] for key in ("frames", "masks")})
    return batches


def _validate(stage: Stage, batches: list[dict], folder: Path) -> dict[str, float]:
    """Scores over the held-out clips, and a picture of the first: input, result, truth."""
    scores: dict[str, list[np.ndarray]] = {"psnr": [], "ssim": [], "hole_psnr": []}
    for number, batch in enumerate(batches):
        result, truth = stage.complete(batch)
        masks = batch["masks"].reshape(truth.shape[:3])
        scores["psnr"].append(psnr(result, truth))
        scores["ssim"].append(ssim(result, truth))
        scores["hole_psnr"].append(psnr(result, truth, masks))
        if number == 0:
            shown = np.where(masks[..., None], np.uint8(128), truth)
            rows = [np.concatenate(list(row), axis=1) for row in (shown, result, truth)]
            cv2.imwrite(str(folder / PICTURE), np.concatenate(rows)[..., ::-1])
    means = {}
    for key, values in scores.items():
        finite = np.concatenate(values)
        finite = finite[np.isfinite(finite)]
        if len(finite):
            means[f"validation_{key}"] = float(finite.mean())
    return means
