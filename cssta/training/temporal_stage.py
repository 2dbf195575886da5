"""Stage temporal: the ConvGRU network after a frozen inpainter (Sec. 2.4, Lai et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cssta.flow import backward_flow, visibility, warp
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork, composite
from cssta.losses import feature_loss, reconstruction_loss, temporal_loss
from cssta.temporal import TemporalNetwork
from cssta.training.batches import to_uint8
from cssta.training.stage import Stage

# Weight of stability against similarity; both are means over the frame.
STABILITY = 50.0


class TemporalStage(Stage):
    """Balances stability against the previous output with similarity to the current frame."""

    name = "temporal"
    network: TemporalNetwork

    def __init__(
        self,
        config,
        network,
        settings,
        losses,
        device,
        inpainter: InpaintingNetwork,
        teacher: Im2Im,
        **more,
    ) -> None:
        super().__init__(config, network, settings, losses, device, **more, adversarial=False)
        self.inpainter = inpainter.to(device).eval().requires_grad_(False)
        self.teacher = teacher.to(device).eval().requires_grad_(False)

    def step(self, batch: dict) -> dict[str, float]:
        frames, masks = self.network_inputs(batch)
        completed = self._completed(frames, masks)
        batch_size, length = frames.shape[:2]
        zero = frames.new_zeros(())
        terms = dict.fromkeys(("stability", "perceptual", "reconstruction"), zero)
        with self.autocast():
            previous, hidden = completed[:, 0], None
            for t in range(length):
                current, hole = completed[:, t], masks[:, t]
                output, hidden = self.distributed(current, previous, hole, hidden)
                if t:
                    flow = _flows(batch["frames"], t).to(self.device)
                    trust = visibility(frames[:, t], warp(frames[:, t - 1], flow)) * hole
                    step = temporal_loss(output, warp(previous, flow), trust)
                    terms["stability"] = terms["stability"] + step
                _, features = self.teacher(output)
                with torch.no_grad():
                    _, wanted = self.teacher(current)
                terms["perceptual"] = terms["perceptual"] + feature_loss(features, wanted)
                terms["reconstruction"] = terms["reconstruction"] + reconstruction_loss(
                    output, frames[:, t], hole, self.losses.delta
                )
                previous = output
        count = batch_size * length
        loss = (
            STABILITY * terms["stability"]
            + self.losses.lambda_f * terms["perceptual"]
            + self.losses.lambda_r * terms["reconstruction"]
        ) / count
        self.finish_step(loss)
        report = {f"loss_{key}": value.item() / count for key, value in terms.items()}
        return {"loss": loss.item(), **report}

    @torch.no_grad()
    def complete(self, batch: dict) -> tuple[np.ndarray, np.ndarray]:
        frames, masks = self.network_inputs(batch)
        completed = self._completed(frames, masks)
        outputs, previous, hidden = [], completed[:, 0], None
        for t in range(frames.shape[1]):
            previous, hidden = self.exported(completed[:, t], previous, masks[:, t], hidden)
            outputs.append(previous)
        result = torch.stack(outputs, dim=1).flatten(0, 1)
        return to_uint8(result), to_uint8(frames.flatten(0, 1))

    @torch.no_grad()
    def _completed(self, frames: Tensor, masks: Tensor) -> Tensor:
        """The frozen inpainter's composites (B, T, 3, H, W)."""
        with self.autocast():
            _, completed = self.inpainter(frames, masks, frames.shape[1])
        output = completed.output.float().clamp(-1, 1).unflatten(0, frames.shape[:2])
        return composite(output, frames, masks)


def _flows(frames, t: int) -> Tensor:
    """Flow from frame t to t - 1 of every clip, uint8 (B, T, H, W, 3) -> (B, 2, H, W)."""
    array = np.asarray(frames.cpu() if isinstance(frames, Tensor) else frames)
    flows = [backward_flow(clip[t], clip[t - 1]) for clip in array]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)
