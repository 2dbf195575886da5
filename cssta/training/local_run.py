"""All three stages on one machine, from packed clips: how the default weights are made.

The same stages as the Ray job, in one process, each for a given time; progress is saved every few
minutes and a later run goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from cssta.checkpoint import save_model
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.metrics import psnr
from cssta.temporal import TemporalNetwork
from cssta.training.im2im_stage import Im2ImStage
from cssta.training.inpainter_stage import InpainterStage
from cssta.training.optimisation import Settings
from cssta.training.packed import PackedClips
from cssta.training.stage import STATE, Stage
from cssta.training.temporal_stage import TemporalStage


@dataclass
class LocalRun:
    """What to train and for how long.

    `minutes` per stage, or `steps` per stage, which win: equal budgets for sizes to be compared.
    `batch` clips of `frames` frames at `size` x `size`. The learning rate falls along half a
    cosine over the stage, from `settings.learning_rate`.
    """

    packed: Path
    output: Path
    config: ModelConfig
    settings: Settings
    losses: LossWeights
    minutes: dict[str, float]
    steps: dict[str, int] | None = None
    batch: int = 2
    frames: int = 5
    size: int = 128
    max_stride: int = 5
    ratio: tuple[float, float] = (0.05, 0.35)
    seed: int = 0
    report_every: int = 50
    save_every_s: float = 180.0
    log: Callable[[str], None] = print
    held_out: list[dict] = field(default_factory=list)

    def run(self) -> Path:
        """Train and write the model folder `output/model`; stages that ended are not run again."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        clips = PackedClips(self.packed)
        training, held = clips.split(0.06)
        how = dict(frames=self.frames, size=self.size, max_stride=self.max_stride, ratio=self.ratio)
        self.held_out = list(islice(clips.batches(held, batch=4, seed=1, **how), 4))
        self.log(f"{len(training)} clips to train on, {len(held)} of other scenes held out")

        def batches(stage: Stage) -> Iterator[dict]:
            # Another seed after every resumption, so that no clip is seen in the same order twice.
            return clips.batches(training, batch=self.batch, seed=self.seed + stage.steps, **how)

        images = replace(self.settings, targets=None)
        teacher = Im2Im(self.config)
        adversarial = self.losses.lambda_g > 0
        stage = Im2ImStage(
            self.config, teacher, images, self.losses, device, adversarial=adversarial
        )
        teacher = self._train(stage, batches)
        network = InpaintingNetwork(self.config)
        network.start_from(teacher)
        stage = InpainterStage(
            self.config,
            network,
            self.settings,
            self.losses,
            device,
            teacher=teacher,
            adversarial=adversarial,
        )
        inpainter = self._train(stage, batches)
        stage = TemporalStage(
            self.config,
            TemporalNetwork(self.config),
            self.settings,
            self.losses,
            device,
            inpainter=inpainter,
            teacher=teacher,
        )
        temporal = self._train(stage, batches)
        return save_model(
            self.output / "model", self.config, inpainter, temporal, teacher, half=True
        )

    def _train(self, stage: Stage, batches: Callable[[Stage], Iterator[dict]]) -> torch.nn.Module:
        folder = self.output / stage.name
        spent = 0.0
        if (folder / STATE).exists():
            stage.restore(folder)
            spent = float((folder / "minutes").read_text())
            self.log(f"{stage.name}: going on after {stage.steps} steps, {spent:.1f} minutes")
        start = saved = time.monotonic()
        base = stage.settings.learning_rate
        recent: list[dict[str, float]] = []
        stream = batches(stage)
        now = spent
        while (done := self._share_done(stage, now)) < 1:
            rate = base * max(0.02, 0.5 + 0.5 * math.cos(math.pi * done))
            for group in stage.optimiser.adam.param_groups:
                group["lr"] = rate
            recent.append(stage.step(next(stream)))
            now = spent + (time.monotonic() - start) / 60
            if stage.steps % self.report_every == 0:
                keys = dict.fromkeys(key for report in recent for key in report)
                means = {k: np.mean([r[k] for r in recent if k in r]) for k in keys}
                text = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
                share = self._share_done(stage, now)
                self.log(f"{stage.name} {stage.steps} ({now:.1f} min, {share:.0%})  {text}")
                recent = []
            if time.monotonic() - saved > self.save_every_s:
                self._save(stage, folder, now)
                saved = time.monotonic()
        self._save(stage, folder, now)
        return stage.exported

    def _share_done(self, stage: Stage, minutes: float) -> float:
        if self.steps is not None:
            return stage.steps / max(1, self.steps[stage.name])
        return minutes / max(1e-9, self.minutes[stage.name])

    def _save(self, stage: Stage, folder: Path, minutes: float) -> None:
        stage.save(folder)
        (folder / "minutes").write_text(f"{minutes:.3f}")
        score = validation_psnr(stage, self.held_out)
        self.log(f"{stage.name}: saved at {stage.steps} steps; held out, hole PSNR {score:.2f} dB")


def validation_psnr(stage: Stage, batches: list[dict]) -> float:
    """Mean hole PSNR of the stage's averaged weights over frames with a hole, in dB."""
    scores = []
    for batch in batches:
        result, truth = stage.complete(batch)
        scores.append(psnr(result, truth, batch["masks"].reshape(truth.shape[:3])))
    return float(np.nanmean(np.concatenate(scores)))
