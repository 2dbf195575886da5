from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cssta.gated import GatedConv, ResidualGatedConv


@pytest.mark.parametrize("kernel, dilation", [(3, 1), (5, 1), (3, 4), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_sizes_are_kept_or_halved(kernel, dilation, stride):
    layer = GatedConv(3, 8, kernel, stride, dilation)
    assert layer(torch.randn(2, 3, 12, 20)).shape == (2, 8, 12 // stride, 20 // stride)


def test_a_closed_gate_lets_nothing_through():
    layer, x = GatedConv(3, 8), torch.randn(1, 3, 6, 6)
    torch.nn.init.constant_(layer.gate_channel.bias, -1e4)
    assert not layer(x).any()


def test_an_open_gate_is_a_plain_convolution():
    layer, x = GatedConv(3, 8), torch.randn(1, 3, 6, 6)
    torch.nn.init.constant_(layer.gate_channel.bias, 1e4)
    assert torch.allclose(layer(x), F.leaky_relu(layer.feature(x), 0.2))


def test_a_fresh_layer_keeps_the_size_of_its_signal():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 24, 24)
    for _ in range(4):
        x = GatedConv(32, 32)(x)
    assert 0.2 < x.std() < 3


def test_residual_adds_to_its_input():
    layer, x = ResidualGatedConv(8, dilation=3), torch.randn(2, 8, 9, 7)
    assert torch.equal(layer(x), x + layer.conv(x))
    torch.nn.init.zeros_(layer.conv.feature.weight)
    assert torch.equal(layer(x), x)


def test_gradient_reaches_every_weight():
    layer = GatedConv(3, 8)
    layer(torch.randn(1, 3, 6, 6)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())
