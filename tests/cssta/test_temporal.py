from __future__ import annotations

import pytest
import torch

from cssta.config import ModelConfig
from cssta.temporal import ConvGRU, TemporalNetwork

CONFIG = ModelConfig(temporal_width=6)


def inputs(height=16, width=24):
    rng = torch.Generator().manual_seed(0)
    current, previous = torch.rand(2, 2, 3, height, width, generator=rng) * 2 - 1
    masks = (torch.rand(2, 1, height, width, generator=rng) < 0.3).float()
    return current, previous, masks


@pytest.fixture
def trained() -> TemporalNetwork:
    torch.manual_seed(0)
    network = TemporalNetwork(CONFIG)
    torch.nn.init.normal_(network.residual.weight)
    return network


def test_untrained_it_changes_nothing():
    current, previous, masks = inputs()
    output, hidden = TemporalNetwork(CONFIG)(current, previous, masks, None)
    assert torch.equal(output, current)
    assert hidden.shape == (2, 12, 4, 6)


def test_equals_the_input_outside_the_hole(trained):
    current, previous, masks = inputs()
    output, _ = trained(current, previous, masks, None)
    outside = (masks < 0.5).expand_as(current)
    assert torch.equal(output[outside], current[outside])
    assert not torch.equal(output[~outside], current[~outside])


def test_the_past_matters(trained):
    current, previous, masks = inputs()
    output, hidden = trained(current, previous, masks, None)
    assert not torch.equal(trained(current, -previous, masks, None)[0], output)
    assert not torch.equal(trained(current, previous, masks, hidden)[0], output)


def test_a_clip_starts_from_an_empty_state(trained):
    current, previous, masks = inputs()
    output, hidden = trained(current, previous, masks, None)
    again, _ = trained(current, previous, masks, torch.zeros_like(hidden))
    assert torch.equal(again, output)


def test_gradient_reaches_back_through_the_state(trained):
    current, previous, masks = inputs()
    first = current.clone().requires_grad_()
    _, hidden = trained(first, previous, masks, None)
    output, _ = trained(current, previous, masks, hidden)
    output.square().sum().backward()
    assert first.grad.any()


def test_the_state_stays_bounded():
    torch.manual_seed(0)
    unit, hidden = ConvGRU(4), torch.zeros(1, 4, 5, 6)
    for _ in range(50):
        hidden = unit(100 * torch.randn(1, 4, 5, 6), hidden)
    assert hidden.abs().max() <= 1
