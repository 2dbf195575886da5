from __future__ import annotations

import torch

from cssta.backbone import Decoder
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork

CONFIG = ModelConfig(width=6, coarse_width=4, dilations=(2,))


def test_shapes():
    image, activations = Im2Im(CONFIG)(torch.randn(2, 3, 16, 24))
    assert image.shape == (2, 3, 16, 24)
    assert len(activations) == 3


def test_im2im_and_inpainter_share_one_decoder_class():
    ours, theirs = Im2Im(CONFIG).decoder, InpaintingNetwork(CONFIG).refinement.decoder
    assert type(ours) is type(theirs) is Decoder
    ours.load_state_dict(theirs.state_dict())


def test_frames_do_not_mix():
    network, frames = Im2Im(CONFIG).eval(), torch.randn(3, 3, 16, 16)
    together, _ = network(frames)
    alone, _ = network(frames[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-5)
