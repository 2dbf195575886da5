"""What every worker of a training stage runs: a `cssta.training` stage over Ray Data batches.

A step is a function of the weights before it, its clips, the seed and its number: nothing else is
drawn or remembered. So a stage that was interrupted ends as it would have ended in peace.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import ray
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
from cssta.training import (
    DivergedError,
    Im2ImStage,
    InpainterStage,
    Stage,
    TemporalStage,
    seed_step,
)
from pipelines.checkpoints import Checkpoints
from pipelines.clip_loading import Clip
from pipelines.compiled_stage import compile_stage
from pipelines.config import DataConfig, StageConfig
from pipelines.stage_clips import worker_batches
from pipelines.stage_settings import stage_settings
from pipelines.storage import StorageError

logger = logging.getLogger(__name__)

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
    validation: Sequence[Clip] | ray.ObjectRef
    """The clips, or where they are kept. (Decoded elsewhere: a file may end its decoder.)"""
    checkpoints: Checkpoints


def train_worker(config: dict[str, StageTask]) -> str | None:
    """Train `task.stage.steps` steps, going on from the run's last checkpoint if there is one.

    Returns why training was given up before its last step, None where it was not. (Raising would
    have Ray start it again, from the same checkpoint and with the same clips.)
    """
    task = config["task"]
    torch.set_num_threads(task.threads)
    cv2.setNumThreads(1)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(task.seed)  # (for networks that start from random weights)
    stage = build_stage(task, ray.train.torch.get_device(), _distributed(world))
    with tempfile.TemporaryDirectory() as scratch:
        if task.checkpoints.restore(Path(scratch)):
            stage.restore(Path(scratch))
    validation = _validation_batches(task) if rank == 0 else []
    try:
        _run(task, stage, rank, world, validation)
    except DivergedError as error:
        return f"step {stage.steps}: {error}"
    return None


def _run(task: StageTask, stage: Stage, rank: int, world: int, validation: list[dict]) -> None:
    total = task.stage.steps
    recent: list[dict[str, float]] = []
    waited, since = 0.0, time.monotonic()
    batches = worker_batches(task, done=stage.steps)
    while stage.steps < total:
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        seed_step(task.seed, stage.steps)
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
            "skipped_steps": stage.skipped,
            "steps_per_second": len(recent) / elapsed,
            "data_wait_share": waited / elapsed,
        }
        if save and rank == 0:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                stage.save(folder)
                if validate:
                    metrics |= _validate(stage, validation, folder)
                _keep(task.checkpoints, folder, metrics, needed=last)
        ray.train.report(metrics)
        recent, waited, since = [], 0.0, time.monotonic()


def _keep(checkpoints: Checkpoints, folder: Path, metrics: dict, needed: bool) -> None:
    """Save; storage that is away costs this checkpoint, not the run, unless it is the last one."""
    try:
        checkpoints.save(folder, metrics["step"], metrics)
    except StorageError as error:
        if needed:
            raise
        logger.warning("step %d is not kept, training goes on: %s", metrics["step"], error)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the steps that have a finite value of it.

    Some values are not taken at every step; those of a step that was skipped may not be finite
    (`skipped_steps` counts these), and would hide all others of the window.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if math.isfinite(value):
                found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def build_stage(task: StageTask, device: torch.device, wrap: Callable) -> Stage:
    """The stage with the networks that it trains and those that it builds on."""
    stage = _plain_stage(task, device, wrap)
    if task.stage.compile:
        compile_stage(stage)
    return stage


def _plain_stage(task: StageTask, device: torch.device, wrap: Callable) -> Stage:
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
    """Batches of one clip each. (What comes from the object store must not be written to.)"""
    stored = task.validation
    clips = ray.get(stored) if isinstance(stored, ray.ObjectRef) else stored
    return [{key: value[None].copy() for key, value in clip.items()} for clip in clips]


def _validate(stage: Stage, batches: list[dict], folder: Path) -> dict[str, float]:
    """Scores over the held-out clips, their number, and a picture of the first.

    The picture's rows are input, result and truth.
    """
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
    means = {"validation_clips": float(len(batches))}
    for key, values in scores.items():
        finite = np.concatenate(values) if values else np.empty(0)
        finite = finite[np.isfinite(finite)]
        if len(finite):
            means[f"validation_{key}"] = float(finite.mean())
    return means
