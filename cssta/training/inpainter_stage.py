"""Stage inpainter: coarse and refinement together, with a frozen IM2IM as feature teacher."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork, composite
from cssta.losses import feature_loss, reconstruction_loss
from cssta.training.batches import to_uint8
from cssta.training.stage import Stage


class InpainterStage(Stage):
    """Minimises eq. 7 over several targets per clip, each the others' reference.

    Every `settings.entropy_every` steps the report has `attention_entropy`, in nats: near 0 where a
    query has found its match, near the logarithm of the number of keys where it drowns.
    """

    name = "inpainter"
    network: InpaintingNetwork

    def __init__(self, config, network, settings, losses, device, teacher: Im2Im, **more) -> None:
        super().__init__(config, network, settings, losses, device, **more)
        self.network.refinement.attention.unfold = settings.unfold
        self.network.checkpointing = settings.checkpointing
        self.teacher = teacher.to(device).eval().requires_grad_(False)

    def step(self, batch: dict) -> dict[str, float]:
        frames, masks = self.network_inputs(batch)
        length = frames.shape[1]
        targets = min(self.settings.targets or length, length)
        order = torch.randperm(length).to(self.device)
        frames, masks = frames[:, order], masks[:, order]
        truth = frames[:, :targets].flatten(0, 1)
        holes = masks[:, :targets].flatten(0, 1)
        weights, count = self.losses, len(truth)
        report: dict[str, float] = {}
        attention = self.network.refinement.attention
        every = self.settings.entropy_every
        attention.track_entropy = bool(every) and self.steps % every == 0
        with self.autocast():
            encoded, completed = self.distributed(
                frames, masks, targets, self._references(targets, length)
            )
            attention.track_entropy = False
            coarse = reconstruction_loss(
                encoded.coarse.float(), frames.flatten(0, 1), masks.flatten(0, 1), weights.delta
            ) * (targets / length)
            refined = reconstruction_loss(completed.output.float(), truth, holes, weights.delta)
            with torch.no_grad():
                _, teaching = self.teacher(truth)
            features = feature_loss(completed.activations, teaching)
            loss = weights.lambda_r * (coarse + refined) + weights.lambda_f * features
            if self.discriminator is not None:
                fake = composite(completed.output, truth, holes)
                report |= self.train_discriminator(truth, fake, holes)
                adversarial = self.adversarial_loss(fake, holes)
                loss = loss + weights.lambda_g * adversarial
                report["loss_generator"] = adversarial.item() / count
        # The temperature takes part in the graph even when no target has a hole.
        loss = loss / count + 0 * attention.log_scale
        self.finish_step(loss)
        entropy = completed.entropy.item()
        if math.isfinite(entropy):
            report["attention_entropy"] = entropy
        return {
            "loss": loss.item(),
            "loss_coarse": coarse.item() / count,
            "loss_reconstruction": refined.item() / count,
            "loss_feature": features.item() / count,
            "attention_scale": attention.log_scale.exp().item(),
            **report,
        }

    def _references(self, targets: int, length: int) -> Tensor | None:
        """Now and then few references or none, bool (targets, length): a still has none either."""
        share = self.settings.reference_dropout
        if not share or torch.rand(()) >= share:
            return None
        kept = torch.rand(targets, length) < torch.randint(0, 2, ()) / 2
        return kept.to(self.device)

    @torch.no_grad()
    def complete(self, batch: dict) -> tuple[np.ndarray, np.ndarray]:
        frames, masks = self.network_inputs(batch)
        truth, holes = frames.flatten(0, 1), masks.flatten(0, 1)
        _, completed = self.exported(frames, masks, frames.shape[1])
        return to_uint8(composite(completed.output.float(), truth, holes)), to_uint8(truth)
