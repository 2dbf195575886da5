"""Stage IM2IM: true images in, the same images out (Sec. 2.2); L1 and GAN."""

from __future__ import annotations

import numpy as np
import torch

from cssta.im2im import Im2Im
from cssta.training.batches import to_uint8
from cssta.training.stage import Stage


class Im2ImStage(Stage):
    """Trains the auto-encoder; every frame of every clip is an image of its own."""

    name = "im2im"
    network: Im2Im

    def step(self, batch: dict) -> dict[str, float]:
        frames, _ = self.network_inputs(batch)
        truth = frames.flatten(0, 1)
        nothing_missing = torch.zeros_like(truth[:, :1])
        report: dict[str, float] = {}
        with self.autocast():
            output, _ = self.distributed(truth)
            reconstruction = (output.float() - truth).abs().mean(dim=(1, 2, 3)).sum()
            loss = self.losses.lambda_r * reconstruction
            if self.discriminator is not None:
                report |= self.train_discriminator(truth, output, nothing_missing)
                adversarial = self.adversarial_loss(output, nothing_missing)
                loss = loss + self.losses.lambda_g * adversarial
                report["loss_generator"] = adversarial.item() / len(truth)
        loss = loss / len(truth)
        self.finish_step(loss)
        return {
            "loss": loss.item(),
            "loss_reconstruction": reconstruction.item() / len(truth),
            **report,
        }

    @torch.no_grad()
    def complete(self, batch: dict) -> tuple[np.ndarray, np.ndarray]:
        frames, _ = self.network_inputs(batch)
        truth = frames.flatten(0, 1)
        output, _ = self.exported(truth)
        return to_uint8(output), to_uint8(truth)
