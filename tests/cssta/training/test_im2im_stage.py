from __future__ import annotations

import numpy as np
import torch

from cssta.losses import LossWeights


def test_overfits_one_batch(build, batch):
    stage = build("im2im", learning_rate=5e-3, adversarial=False)
    losses = [stage.step(batch)["loss_reconstruction"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_discriminator_tells_real_from_fake(build, batch):
    # Without the generator's answer (lambda_g = 0) the two scores part for good.
    stage = build("im2im", learning_rate=5e-3, losses=LossWeights(lambda_g=0))
    for _ in range(25):
        report = stage.step(batch)
    assert report["score_real"] > report["score_fake"] + 0.2
    assert report["loss_discriminator"] < 1.8


def test_the_total_is_l1_and_gan(build, batch):
    report = build("im2im", losses=LossWeights(lambda_r=2.0, lambda_g=0.7)).step(batch)
    expected = 2.0 * report["loss_reconstruction"] + 0.7 * report["loss_generator"]
    assert np.isclose(report["loss"], expected, rtol=1e-4)


def test_masks_do_not_matter(build, batch):
    reports = []
    for masks in (batch["masks"], ~batch["masks"]):
        stage = build("im2im")
        reports.append(stage.step({**batch, "masks": masks}))
    assert reports[0] == reports[1]


def test_each_loss_trains_its_own_network(build, batch):
    stage = build("im2im", gradient_clip=1e9)
    stage.step(batch)
    generator = {n: p.grad.clone() for n, p in stage.network.named_parameters()}
    assert all(torch.isfinite(g).all() for g in generator.values())
    # The discriminator keeps the gradient of its own loss: eq. 6 adds nothing to it.
    frames = stage.network_inputs(batch)[0].flatten(0, 1)
    kept = [p.grad.clone() for p in stage.discriminator.parameters()]
    fake = torch.zeros_like(frames).requires_grad_()
    stage.adversarial_loss(fake, fake[:, :1].detach()).backward()
    assert fake.grad.any()
    for parameter, gradient in zip(stage.discriminator.parameters(), kept, strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, gradient)
