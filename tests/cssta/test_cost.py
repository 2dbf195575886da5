"""What a completed frame costs at most, counted: the limit that the project holds itself to."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from itertools import islice
from statistics import mean

import numpy as np
import pytest
import torch

from cssta import Inpainter
from cssta.backbone import feature_mask
from cssta.benchmark import clip
from cssta.engine import TEXTURE
from cssta.measure import count_flops
from cssta.texture import TexturePainter

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


@pytest.fixture(scope="module")
def clip_432x240():
    return clip(7, 240, 432, 0.15)


@pytest.fixture(scope="module")
def texture(clip_432x240) -> float:
    """FLOPs of laying texture over the whole hole, per frame that follows another."""
    painter = TexturePainter(TEXTURE)
    pairs = zip(*clip_432x240, strict=True)
    painter.paint(*next(pairs), 0)
    numbered = enumerate(islice(pairs, 2), 1)
    return mean(count_flops(partial(painter.paint, *pair, number)) for number, pair in numbered)


@torch.inference_mode()
def test_a_frame_of_which_others_see_nothing_is_within_the_limit(shipped, clip_432x240, texture):
    _, masks = clip_432x240
    assert masks.mean() == pytest.approx(0.15, abs=0.02)
    encode, attend, decode = cost(shipped, masks)
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
