from __future__ import annotations

import torch
from torch import nn

from cssta.config import ModelConfig
from cssta.discriminator import Discriminator

CONFIG = ModelConfig(discriminator_width=6)


def test_scores_are_a_map_of_features():
    network = Discriminator(CONFIG)
    assert network(torch.randn(2, 3, 64, 96), torch.zeros(2, 1, 64, 96)).shape == (2, 24, 4, 6)


def test_scores_are_local():
    frames = torch.zeros(1, 3, 256, 32, requires_grad=True)
    Discriminator(CONFIG)(frames, torch.zeros(1, 1, 256, 32))[:, :, 0].sum().backward()
    assert frames.grad[:, :, :16].any()
    assert not frames.grad[:, :, 192:].any()


def test_the_mask_is_seen():
    network, frames = Discriminator(CONFIG), torch.randn(1, 3, 32, 32)
    masks = torch.zeros(1, 1, 32, 32)
    assert not torch.equal(network(frames, masks), network(frames, masks + 1))


def test_spectral_norm_of_every_layer_is_one():
    torch.manual_seed(0)
    network = Discriminator(CONFIG).train()
    for _ in range(40):  # one power iteration each
        network(torch.randn(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 5
    for layer in convolutions:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert abs(norm.item() - 1) < 0.05
