from __future__ import annotations

import torch

from cssta.backbone import SCALE, Decoder, Encoder, feature_mask


def test_encoder_and_decoder_shapes():
    frames, masks = torch.randn(2, 3, 24, 32), torch.zeros(2, 1, 24, 32)
    features = Encoder(6, (2, 4))(frames, masks)
    assert features.shape == (2, 12, 6, 8)
    image, activations = Decoder(6)(features)
    assert image.shape == (2, 3, 24, 32)
    # Eq. 4 compares the last three layers, the widest last.
    assert [tuple(a.shape) for a in activations] == [
        (2, 6, 12, 16),
        (2, 6, 12, 16),
        (2, 3, 24, 32),
    ]


def test_features_have_both_signs():
    torch.manual_seed(0)
    features = Encoder(6, (2,))(torch.randn(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))
    assert 0.2 < (features > 0).float().mean() < 0.8


def test_dilations_widen_the_receptive_field():
    def reach(dilations):
        frames = torch.zeros(1, 3, 128, 4, requires_grad=True)
        encoder = Encoder(4, dilations)
        encoder(frames, torch.zeros(1, 1, 128, 4))[..., 16, 0].sum().backward()
        rows = frames.grad.abs().sum((0, 1, 3)).nonzero()
        return int(rows.max() - rows.min())

    assert reach((2, 4)) >= reach(()) + 2 * SCALE * (2 + 4) - SCALE


def test_the_mask_tells_a_hole_from_black():
    encoder = Encoder(4, ())
    frames, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    assert not torch.allclose(encoder(frames, masks), encoder(frames, masks + 1))


def test_one_missing_pixel_hides_the_feature_above_it():
    masks = torch.zeros(1, 1, 8, 12)
    masks[..., 3, 4] = 1
    expected = torch.zeros(1, 1, 2, 3)
    expected[..., 0, 1] = 1
    assert torch.equal(feature_mask(masks), expected)
