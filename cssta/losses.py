"""The losses of Sec. 2 and Sec. 2.5, each with its equation.

Shapes: N frames, H and W image size. Every loss is a sum over frames of a mean within the frame, as
eq. 4 has it; the training step divides the total by N, so batch size does not shift the balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Eq. 7's weights and eq. 8's delta; the defaults are the paper's."""

    lambda_r: float = 1.0
    lambda_f: float = 0.5
    lambda_g: float = 1.0
    delta: float = 100.0


def reconstruction_loss(output: Tensor, truth: Tensor, masks: Tensor, delta: float) -> Tensor:
    """Eq. 8: L1 with the hole weighted by `delta`.

    `output`, `truth`: (N, 3, H, W); `masks`: (N, 1, H, W), 1 = hole. The mean is over all of the
    frame's pixels, not the hole's, so an empty hole gives 0 there and never 0 / 0.
    """
    error = (output - truth).abs()
    return ((delta * masks + (1 - masks)) * error).mean(dim=(1, 2, 3)).sum()


def feature_loss(activations: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Eq. 4: L1 between decoder activations, normalised by their element count.

    `activations`: the inpainter decoder's, one (N, C, h, w) per layer; `teacher`: IM2IM's for the
    true frames, same shapes. No gradient reaches the teacher.
    """
    terms = [
        (own - true.detach()).abs().mean(dim=(1, 2, 3)).sum()
        for own, true in zip(activations, teacher, strict=True)
    ]
    return torch.stack(terms).sum()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Eq. 5 with the signs that the paper swapped in print put right: real > 1, fake < -1."""
    per_frame = F.relu(1 - real).mean(dim=(1, 2, 3)) + F.relu(1 + fake).mean(dim=(1, 2, 3))
    return per_frame.sum()


def generator_loss(fake: Tensor) -> Tensor:
    """Eq. 6: the generator wants its frames scored high."""
    return -fake.mean(dim=(1, 2, 3)).sum()


def temporal_loss(current: Tensor, previous_warped: Tensor, visibility: Tensor) -> Tensor:
    """Short-term stability (Lai et al. 2018): change against the flow-aligned previous output.

    `current`, `previous_warped`: (N, 3, H, W); `visibility`: (N, 1, H, W) in [0, 1], low where the
    flow cannot be trusted (see `cssta.flow.visibility`).
    """
    return (visibility * (current - previous_warped).abs()).mean(dim=(1, 2, 3)).sum()
