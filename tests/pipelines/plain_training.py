"""A stage trained by a loop in this process: what training on a cluster is held against."""

from __future__ import annotations

from itertools import chain, count, islice

import numpy as np
import torch

from cssta.config import ModelConfig
from cssta.losses import LossWeights
from cssta.training import Stage, seed_step
from pipelines.checkpoints import Checkpoints
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import plan_clips
from pipelines.config import JobConfig
from pipelines.manifest import Manifest
from pipelines.train_loop import StageTask, _follow_schedule, build_stage


def train_plain(cfg: JobConfig, name: str, model: ModelConfig, videos: Manifest) -> Stage:
    """Stage `name` after its last step; all workers' clips of a step are one batch here."""
    section, losses = getattr(cfg.stages, name), LossWeights(**cfg.losses.model_dump())
    nowhere = Checkpoints("/nowhere")
    task = StageTask(name, model, section, losses, cfg.data, cfg.seed, 1, {}, (), nowhere)
    torch.set_num_threads(1)
    torch.manual_seed(cfg.seed)
    stage = build_stage(task, torch.device("cpu"), lambda network: network)
    rows = chain.from_iterable(plan_clips(videos, cfg.data, cfg.seed, n) for n in count())
    while stage.steps < section.steps:
        step = islice(rows, section.batch_size * cfg.cluster.workers)
        clips = [load_clip(row, cfg.data) for row in step]
        seed_step(cfg.seed, stage.steps)
        stage.step({key: np.stack([clip[key] for clip in clips]) for key in ("frames", "masks")})
        _follow_schedule(task, stage, world=cfg.cluster.workers)
    return stage
