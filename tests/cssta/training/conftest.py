"""Small networks and batches for the stages, and one way to build each stage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.temporal import TemporalNetwork
from cssta.training import Im2ImStage, InpainterStage, Settings, Stage, TemporalStage
from tests.cssta.media import picture

CONFIG = ModelConfig(
    width=6, coarse_width=4, dilations=(2,), temporal_width=4, discriminator_width=4
)


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Two clips of three frames of a picture that moves, with a drifting box missing."""
    frames = np.empty((2, 3, 32, 32, 3), np.uint8)
    masks = np.zeros((2, 3, 32, 32), bool)
    for b in range(2):
        scene = picture(40, 40, seed=b)
        for t in range(3):
            frames[b, t] = scene[t : t + 32, 2 * t : 2 * t + 32]
            masks[b, t, 8 + t : 20 + t, 10:22] = True
    return {"frames": frames, "masks": masks}


@pytest.fixture
def build() -> Callable[..., Stage]:
    """`build(name, adversarial=..., losses=..., **settings)` makes a fresh, seeded stage."""

    def make(
        name: str,
        *,
        adversarial: bool = True,
        losses: LossWeights | None = None,
        **settings,
    ) -> Stage:
        torch.manual_seed(0)
        teacher, inpainter = Im2Im(CONFIG), InpaintingNetwork(CONFIG)
        how = (
            Settings(**{"learning_rate": 2e-3, "reference_dropout": 0.0, **settings}),
            losses or LossWeights(),
        )
        device = torch.device("cpu")
        if name == "im2im":
            return Im2ImStage(CONFIG, Im2Im(CONFIG), *how, device, adversarial=adversarial)
        if name == "inpainter":
            network = InpaintingNetwork(CONFIG)
            return InpainterStage(
                CONFIG, network, *how, device, teacher=teacher, adversarial=adversarial
            )
        network = TemporalNetwork(CONFIG)
        return TemporalStage(CONFIG, network, *how, device, inpainter=inpainter, teacher=teacher)

    return make
