from __future__ import annotations

import pytest
import torch

from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork, composite

CONFIG = ModelConfig(width=6, coarse_width=4, dilations=(2,))


@pytest.fixture
def network() -> InpaintingNetwork:
    """As if trained: no layer left at zero."""
    torch.manual_seed(0)
    network = InpaintingNetwork(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network.eval()


def clip(batch=2, length=3, height=24, width=32, seed=1):
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(batch, length, 3, height, width, generator=rng) * 2 - 1
    masks = torch.zeros(batch, length, 1, height, width)
    for b in range(batch):
        for t in range(length):
            top, left = 2 + 3 * t, 4 + 7 * ((b + t) % 3)
            masks[b, t, 0, top : top + 9, left : left + 8] = 1
    return frames, masks


def test_shapes(network):
    encoded, completed = network(*clip(), targets=2)
    assert encoded.coarse.shape == encoded.frames.shape == (6, 3, 24, 32)
    assert encoded.masks.shape == (6, 1, 24, 32)
    assert encoded.features.shape == (6, 12, 6, 8)
    assert encoded.feature_masks.shape == (6, 1, 6, 8)
    assert completed.output.shape == (4, 3, 24, 32)
    assert [a.shape[1:] for a in completed.activations] == [(6, 12, 16), (6, 12, 16), (3, 24, 32)]


def test_unchanged_outside_the_hole(network):
    frames, masks = clip()
    encoded, completed = network(frames, masks, targets=3)
    frames, masks = frames.flatten(0, 1), masks.flatten(0, 1)
    outside = (masks < 0.5).expand_as(frames)
    for result in (encoded.frames, composite(completed.output, frames, masks)):
        assert torch.equal(result[outside], frames[outside])
        assert not torch.equal(result[~outside], frames[~outside])


def test_what_is_under_a_hole_never_matters(network):
    frames, masks = clip()
    other = torch.where(masks > 0.5, 50 * torch.randn_like(frames), frames)
    one, one_completed = network(frames, masks, targets=3)
    two, two_completed = network(other, masks, targets=3)
    for key in ("coarse", "frames", "features", "feature_masks"):
        assert torch.equal(getattr(one, key), getattr(two, key)), key
    assert torch.equal(one_completed.output, two_completed.output)


def test_targets_learn_from_visible_reference_pixels_of_their_own_clip(network):
    frames, masks = clip()
    frames.requires_grad_()
    _, completed = network(frames, masks, targets=1)
    hole = masks[:1, 0]
    (gradient,) = torch.autograd.grad((completed.output[:1] * hole).square().sum(), frames)
    seen = (masks < 0.5).expand_as(frames)
    for reference in (1, 2):
        assert gradient[0, reference][seen[0, reference]].any()
    assert not gradient[~seen].any()
    assert not gradient[1].any(), "another clip"


def test_no_target_is_its_own_reference(network):
    frames, masks = clip(batch=1)
    encoded, together = network(frames, masks, targets=3)
    for t in range(3):
        others = [i for i in range(3) if i != t]
        own = type(encoded)(*(value[t : t + 1] for value in vars(encoded).values()))
        alone = network.complete(own, encoded.features[others], encoded.feature_masks[others])
        assert torch.allclose(alone.output, together.output[t : t + 1], atol=1e-5)


def test_references_can_be_withheld_from_a_target(network):
    frames, masks = clip(batch=1)
    frames.requires_grad_()
    allowed = torch.tensor([[True, False, True], [False, False, False]])
    _, completed = network(frames, masks, 2, allowed)
    first, second = completed.output.square().sum(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(first, frames, retain_graph=True)
    assert [bool(g.any()) for g in gradient[0]] == [True, False, True]
    (gradient,) = torch.autograd.grad(second, frames)
    assert [bool(g.any()) for g in gradient[0]] == [False, True, False]


def test_any_number_of_references(network):
    frames, masks = clip(batch=1, length=7)
    encoded = network.encode(frames[0], masks[0])
    own = type(encoded)(*(value[:1] for value in vars(encoded).values()))
    outputs = [
        network.complete(own, encoded.features[1 : 1 + n], encoded.feature_masks[1 : 1 + n]).output
        for n in (0, 1, 6)
    ]
    assert all(torch.isfinite(output).all() for output in outputs)
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(*outputs[1:])


def test_frames_without_a_hole_and_frames_that_are_all_hole(network):
    frames, masks = clip()
    for fill in (0, 1):
        _, completed = network(frames, torch.full_like(masks, fill), targets=3)
        assert torch.isfinite(completed.output).all()


def test_untrained_coarse_stage_is_its_first_guess():
    frames, masks = clip()
    frames, masks = frames.flatten(0, 1) * 0 + 0.25, masks.flatten(0, 1)
    coarse = InpaintingNetwork(CONFIG).coarse(frames, masks)
    assert torch.allclose(coarse, frames, atol=1e-5)


def test_starts_from_im2im(network):
    im2im = Im2Im(CONFIG)
    network.start_from(im2im)
    features = torch.randn(1, 12, 4, 4)
    assert torch.equal(network.refinement.decoder(features)[0], im2im.decoder(features)[0])
    frames = torch.randn(1, 4, 16, 16).split([3, 1], dim=1)
    for encoder in (network.refinement.target_encoder, network.refinement.attention_encoder):
        assert torch.equal(encoder(*frames), im2im.encoder(*frames))


def test_every_weight_takes_part(network):
    frames, masks = clip()
    encoded, completed = network(frames, masks, targets=2)
    (encoded.coarse.square().sum() + completed.output.square().sum()).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_a_compiled_network_with_checkpointing_gives_the_same_result_and_gradients(network):
    frames, masks = clip(batch=1)
    network.checkpointing = True
    results = []
    for function in (network, torch.compile(network, backend="aot_eager")):
        network.zero_grad()
        encoded, completed = function(frames, masks, 2)
        (encoded.coarse.square().mean() + completed.output.square().mean()).backward()
        gradients = [parameter.grad.clone() for parameter in network.parameters()]
        results.append([encoded.coarse.detach(), completed.output.detach(), *gradients])
    for compiled, plain in zip(results[1], results[0], strict=True):
        assert (compiled - plain).abs().max() <= 1e-4 * plain.abs().max().clamp_min(1e-3)
