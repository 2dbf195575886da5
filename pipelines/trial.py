"""What one tuning trial is: a short training of the inpainter with the trial's loss weights.

All trials of a search start from the same weights, see the same clips in the same order and are
scored on the same held-out clips, so that only the loss weights make a difference. The score is
hole PSNR, which does not depend on them; it is reported on the way too, for pruning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import ray
import safetensors.torch
import torch

from cssta.checkpoint import pick_device
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.metrics import psnr
from cssta.training import Im2ImStage, InpainterStage, Settings, Stage, seed_step
from cssta.video import VideoError
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipRow, plan_clips
from pipelines.config import DataConfig, JobConfig, StageConfig
from pipelines.data_sets import object_sequences
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, split
from pipelines.stage_settings import stage_settings
from pipelines.storage import StorageError
from pipelines.tracking import tracking_uri

log = logging.getLogger(__name__)


class TrialError(ValueError):
    """Trials cannot be run on this data; the message says what to do."""


@dataclass(frozen=True)
class TrialStart:
    """What all trials share; weights are safetensors bytes."""

    config: ModelConfig
    im2im: bytes
    inpainter: bytes
    training: tuple[ClipRow, ...]
    scored: tuple[ClipRow, ...]


def trial_objective(cfg: JobConfig) -> partial[float]:
    """The objective for `pipelines.tune.search`: prepares once what all trials share.

    Needs a connected Ray. Raises EmptyBucketError without usable videos, RegistryError or
    CheckpointError if `model.init` cannot be used, TrialError if the start cannot be prepared.
    """
    server = tracking_uri(cfg) if (cfg.model.init or "").startswith("models:/") else None
    config, weights, _ = initial_weights(cfg, server)
    manifest = find_footage(cfg.data)
    prepare = ray.remote(prepare_trials).options(**trial_options(cfg))
    start = prepare.remote(cfg, manifest, config, weights)
    try:
        ray.get(start)
    except ray.exceptions.RayTaskError as error:
        raise TrialError(f"trials cannot be prepared: {error.cause or error}") from error
    return partial(trial_score, start)


def trial_options(cfg: JobConfig) -> dict[str, float]:
    """What a task that trains by itself takes of the cluster."""
    return {"num_cpus": cfg.cluster.cpus_per_worker, "num_gpus": 1 if _wants_gpu(cfg) else 0}


def prepare_trials(
    cfg: JobConfig, manifest: Manifest, config: ModelConfig, weights: dict[str, bytes]
) -> TrialStart:
    """Plan the clips, and take or train the IM2IM that teaches and the inpainter to start from.

    `config`, `weights`: see `pipelines.initial_weights`.
    """
    training, held_out = split(manifest, cfg.data.validation_fraction, cfg.seed)
    objects = object_sequences(cfg.data)
    clips = cfg.tune.steps * max(cfg.stages.im2im.batch_size, cfg.stages.inpainter.batch_size)
    rows = tuple(plan_clips(training, cfg.data, cfg.seed, 0, clips=clips, objects=objects))
    # (a bucket of one video has none to hold out: other clips of it have to do)
    scored = plan_clips(
        held_out if held_out.videos else training,
        cfg.data.model_copy(update={"flip": False}),
        cfg.seed + 1,
        0,
        clips=cfg.tune.clips,
        objects=objects,
    )
    torch.manual_seed(cfg.seed)
    if "im2im" in weights:
        im2im = _unpack(weights["im2im"], Im2Im(config))
    else:
        im2im = _train_teacher(cfg, config, rows)
    inpainter = InpaintingNetwork(config)
    if "inpainter" in weights:
        _unpack(weights["inpainter"], inpainter)
    else:
        inpainter.start_from(im2im)
    return TrialStart(config, _pack(im2im), _pack(inpainter), rows, tuple(scored))


def trial_score(
    start: TrialStart | ray.ObjectRef,
    params: dict[str, float],
    cfg: JobConfig,
    report: Callable[[int, float], None] = lambda step, score: None,
) -> float:
    """Mean hole PSNR (dB) over the scored clips after `cfg.tune.steps` steps; higher is better.

    `params` replace the configured loss weights of the same name; `report` is told the score every
    `cfg.tune.score_every` steps before the last. Raises DivergedError, TrialError if no clip could
    be read, and what `report` raises.
    """
    start = ray.get(start) if isinstance(start, ray.ObjectRef) else start
    torch.manual_seed(cfg.seed)
    stage = InpainterStage(
        start.config,
        _unpack(start.inpainter, InpaintingNetwork(start.config)),
        _settings(cfg.stages.inpainter),
        LossWeights(**(cfg.losses.model_dump() | params)),
        pick_device(None if cfg.cluster.use_gpu else "cpu"),
        teacher=_unpack(start.im2im, Im2Im(start.config)),
    )
    every = cfg.tune.score_every or max(1, cfg.tune.steps // 4)
    for step in _train(stage, start.training, cfg.tune.steps, cfg.stages.inpainter, cfg):
        if step % every == 0 and step < cfg.tune.steps:
            report(step, hole_psnr(stage, start.scored, cfg.data))
    return hole_psnr(stage, start.scored, cfg.data)


def hole_psnr(stage: Stage, rows: tuple[ClipRow, ...], data: DataConfig) -> float:
    """Mean over all frames with a hole, in dB."""
    scores = []
    for batch in _batches(rows, 1, data, rounds=1):
        result, truth = stage.complete(batch)
        scores.append(psnr(result, truth, batch["masks"].reshape(truth.shape[:3])))
    values = np.concatenate(scores) if scores else np.array([np.nan])
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _train_teacher(cfg: JobConfig, config: ModelConfig, rows: tuple[ClipRow, ...]) -> Im2Im:
    stage = Im2ImStage(
        config,
        Im2Im(config),
        _settings(cfg.stages.im2im),
        LossWeights(**cfg.losses.model_dump()),
        pick_device(None if cfg.cluster.use_gpu else "cpu"),
    )
    for _ in _train(stage, rows, cfg.tune.steps, cfg.stages.im2im, cfg):
        pass
    return stage.exported


def _train(
    stage: Stage, rows: tuple[ClipRow, ...], steps: int, section: StageConfig, cfg: JobConfig
) -> Iterator[int]:
    """Train; yields the number of steps done after each."""
    batches = _batches(rows, section.batch_size, cfg.data, rounds=None)
    while stage.steps < steps:
        seed_step(cfg.seed, stage.steps)
        stage.step(next(batches))
        yield stage.steps


def _batches(
    rows: tuple[ClipRow, ...], size: int, data: DataConfig, rounds: int | None
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of decoded clips, `rounds` times over the rows (None: without end).

    A clip that cannot be read is left out; raises TrialError when a whole round gives nothing.
    """
    held: list[dict[str, np.ndarray]] = []
    done = 0
    while rounds is None or done < rounds:
        read = 0
        for row in rows:
            try:
                held.append(load_clip(row, data))
            except (VideoError, StorageError) as error:
                log.warning("left out: %s", error)
                continue
            read += 1
            if len(held) == size:
                yield {key: np.stack([clip[key] for clip in held]) for key in held[0]}
                held = []
        if not read:
            raise TrialError(f"none of {len(rows)} clips could be read; see the warnings above")
        done += 1


def _settings(stage: StageConfig) -> Settings:
    # No weight average: over a short run it would mostly remember the start.
    return replace(stage_settings(stage), ema=0.0)


def _wants_gpu(cfg: JobConfig) -> bool:
    return cfg.cluster.use_gpu is not False and ray.cluster_resources().get("GPU", 0) >= 1


def _pack(network: torch.nn.Module) -> bytes:
    tensors = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def _unpack(content: bytes, network: torch.nn.Module) -> torch.nn.Module:
    network.load_state_dict(safetensors.torch.load(content))
    return network
