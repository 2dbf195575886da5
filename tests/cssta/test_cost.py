"""What a completed frame costs at most, counted: the limit that the project holds itself to."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from cssta import Inpainter
from cssta.backbone import feature_mask
from cssta.benchmark import clip
from cssta.measure import count_flops

PER_FRAME = 150e9  # FLOPs at 432x240 with a 15 % hole, everything included
FRAMES = 72


def cost(made: Inpainter, masks: np.ndarray) -> tuple[int, int, int]:
    """FLOPs to encode a frame, to attend from one to as many references as it has, and to decode.

    `masks` bool (T, H, W), the target's and its references'; H and W multiples of 4. Convolutions
    are counted without being computed.
    """
    height, width = masks.shape[1:]
    shapes = deepcopy(made.network).to("meta")
    frames = torch.empty(1, 3, height, width, device="meta")
    holes = torch.empty(1, 1, height, width, device="meta")
    encoded = shapes.encode(frames, holes)
    encode = count_flops(lambda: shapes.encode(frames, holes))
    decode = count_flops(lambda: shapes.decode(encoded, torch.empty_like(encoded.features)))

    assert len(masks) == 1 + made.plan.far + 2 * len(made.plan.near)
    holes = feature_mask(torch.from_numpy(masks)[:, None].float())
    features = torch.randn(len(masks), *encoded.features.shape[1:]).to(made.half)
    with made.autocast():
        layer = made.network.refinement.attention
        target = features[:1].float()
        attend = count_flops(lambda: layer(target, features[1:], holes[:1], holes[1:]))
    return encode, attend, decode


@pytest.fixture(params=["diagonal sums", "unfolded patches"])
def shipped(request) -> Inpainter:
    """The default weights and settings, by either way to the same attention."""
    made = Inpainter.load(device="cpu")
    made.network.refinement.attention.unfold = request.param == "unfolded patches"
    return made


@torch.inference_mode()
def test_a_frame_of_which_others_see_nothing_is_within_the_limit(shipped):
    frames, masks = clip(7, 240, 432, 0.15)
    assert masks.mean() == pytest.approx(0.15, abs=0.02)
    encode, attend, decode = cost(shipped, masks)
    painter = shipped.painter()
    texture = max(count_flops(lambda n=n: painter.paint(frames[n], masks[n], n)) for n in (0, 1))
    # Each is encoded once, far references a second time as they were given.
    per_frame = encode * (1 + shipped.plan.far / FRAMES) + attend + decode + texture
    assert 20e9 < per_frame <= PER_FRAME


@torch.inference_mode()
def test_that_is_what_a_clip_costs(shipped):
    frames, masks = clip(7, 48, 64, 0.15)
    masks[:] = masks[0]
    shipped.propagation = shipped.texture = None
    encode, attend, decode = cost(shipped, masks)
    counted = count_flops(lambda: shipped.inpaint(frames, masks))
    # (Those near the ends have fewer references.)
    assert 0.7 < counted / (len(frames) * (encode + attend + decode)) <= 1
