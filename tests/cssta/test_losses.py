from __future__ import annotations

import pytest
import torch

from cssta.config import ModelConfig
from cssta.discriminator import Discriminator
from cssta.losses import (
    LossWeights,
    discriminator_loss,
    feature_loss,
    generator_loss,
    reconstruction_loss,
    temporal_loss,
)


def test_the_papers_weights():
    weights = LossWeights()
    assert (weights.lambda_r, weights.lambda_f, weights.lambda_g) == (1, 0.5, 1)
    assert weights.delta == 100


def test_reconstruction_weighs_the_hole():
    output, truth = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)
    masks = torch.tensor([[1.0, 0], [0, 0]]).view(1, 1, 2, 2)
    loss = reconstruction_loss(output, truth, masks, delta=100)
    assert loss.item() == pytest.approx(0.5 * (100 + 3) / 4)


def test_reconstruction_with_an_empty_hole_is_plain_l1():
    truth, nothing = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    assert reconstruction_loss(truth, truth, nothing, 100).item() == 0
    output = truth.clone().requires_grad_()
    loss = reconstruction_loss(output + 0.1, truth, nothing, 100)
    assert loss.item() == pytest.approx(2 * 0.1, rel=1e-5)  # a sum over frames
    loss.backward()
    assert torch.isfinite(output.grad).all()


def test_feature_loss_averages_within_layers_and_sums_over_them():
    own = [torch.ones(2, 4, 3, 3), torch.ones(2, 2, 6, 6)]
    teacher = [torch.zeros(2, 4, 3, 3), torch.full((2, 2, 6, 6), 3.0)]
    assert feature_loss(own, teacher).item() == pytest.approx(2 * 1 + 2 * 2)
    with pytest.raises(ValueError):
        feature_loss(own, teacher[:1])


def test_feature_loss_gives_the_teacher_no_gradient():
    own, teacher = (torch.rand(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    feature_loss([own], [teacher]).backward()
    assert own.grad.any()
    assert teacher.grad is None


def test_hinge_values():
    def score(*values):
        return torch.tensor(values).view(-1, 1, 1, 1)

    assert discriminator_loss(score(2.0), score(-2.0)).item() == 0
    assert discriminator_loss(score(0.5), score(-2.0)).item() == 0.5
    assert discriminator_loss(score(2.0), score(0.25)).item() == 1.25
    assert discriminator_loss(score(0.0, 0.0), score(0.0, 0.0)).item() == 4
    assert generator_loss(score(3.0, -1.0)).item() == -2


def test_discriminator_learns_to_score_real_above_fake():
    torch.manual_seed(0)
    network = Discriminator(ModelConfig(discriminator_width=4))
    adam = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.5, 0.99))
    masks = torch.zeros(4, 1, 32, 32)

    def scores():
        real = 0.5 + 0.1 * torch.randn(4, 3, 32, 32)
        return network(real, masks), network(-real, masks)

    for _ in range(25):
        adam.zero_grad()
        discriminator_loss(*scores()).backward()
        adam.step()
    real, fake = scores()
    assert real.mean() > fake.mean() + 0.5

    # And the generator's loss drives a fake towards what is scored as real.
    frame = torch.full((1, 3, 32, 32), -0.5, requires_grad=True)
    before = generator_loss(network(frame, masks[:1]))
    (gradient,) = torch.autograd.grad(before, frame)
    moved = network(frame - 0.5 * gradient.sign(), masks[:1])
    assert moved.mean() > -before


def test_temporal_loss_ignores_what_the_flow_cannot_see():
    current, previous = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.4)
    visible = torch.tensor([[1.0, 0], [0.5, 0]]).view(1, 1, 2, 2)
    assert temporal_loss(current, previous, visible).item() == pytest.approx(0.4 * 1.5 / 4)
    assert temporal_loss(current, previous, 0 * visible).item() == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_losses_are_sums_over_frames(batch):
    rng = torch.Generator().manual_seed(0)
    one, two = torch.rand(2, batch, 3, 4, 4, generator=rng)
    masks = torch.ones(batch, 1, 4, 4)
    for loss in (
        lambda a, b, m: reconstruction_loss(a, b, m, 100.0),
        lambda a, b, m: feature_loss([a], [b]),
        lambda a, b, m: discriminator_loss(a, b),
        lambda a, b, m: generator_loss(a),
        temporal_loss,
    ):
        parts = [loss(one[i : i + 1], two[i : i + 1], masks[i : i + 1]) for i in range(batch)]
        assert loss(one, two, masks).item() == pytest.approx(sum(parts).item(), rel=1e-5)
