"""Figures: right in size and content; the attention map agrees with the attention itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cssta.checkpoint import Model
from cssta.config import ModelConfig
from cssta.engine import Inpainter
from cssta.evaluation.figures import (
    Look,
    attention_map,
    attention_weights,
    hole_pixel,
    panels,
    side_by_side,
)
from cssta.evaluation.run import Completed
from cssta.inpainting import InpaintingNetwork
from cssta.video import probe, read_frames
from tests.cssta.evaluation.conftest import panning


@pytest.fixture(scope="module")
def completed() -> Completed:
    frames = panning(12)
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 16:32, 20:40] = True
    return Completed("a", frames, masks, {"telea": frames // 2, "cssta": frames})


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    torch.manual_seed(0)
    network = InpaintingNetwork(ModelConfig.preset("tiny"))
    found = Inpainter(Model(network.config, network), torch.device("cpu"))
    found.mixed_precision = False
    return found


def test_panels_show_every_tenth_frame_of_every_method(completed, tmp_path: Path):
    sheet = cv2.imread(str(panels(tmp_path / "a.png", completed)))
    tile = 288 * 48 // 64
    assert sheet.shape[0] > 5 * tile and 2 * 288 < sheet.shape[1] < 3 * 288


def test_side_by_side(completed, tmp_path: Path):
    path = side_by_side(tmp_path / "a.mp4", completed, columns=3)
    info = probe(path)
    assert (info.frames, info.height, info.width) == (12, 2 * (48 + 22), 3 * 64)
    frames = read_frames(path)
    mask = frames[:, 22:70, 64:128] > 127
    assert (mask.any(axis=3) != completed.masks).mean() < 0.02
    truth = frames[:, 70 + 22 :, 64:128]  # the fifth tile, second of the second row
    assert np.abs(truth.astype(int) - completed.frames).mean() < 8
    telea = frames[:, 22:70, 128:]
    assert np.abs(telea.astype(int) - completed.frames // 2).mean() < 8


def test_the_deepest_pixel_of_a_hole():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    y, x = hole_pixel(mask)
    assert abs(y - 19.5) <= 1 and abs(x - 29.5) <= 1
    mask[:] = True
    assert hole_pixel(mask)[0] in (19, 20)
    with pytest.raises(ValueError, match="no hole"):
        hole_pixel(np.zeros((4, 4), bool))


def test_weights_are_a_softmax_over_visible_keys(completed, inpainter):
    weights = attention_weights(inpainter, completed.frames, completed.masks, 6, (24, 30), [2, 9])
    assert weights.shape == (2, 12, 16) and weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1, abs=1e-5) and (weights >= 0).all()
    # A patch that touches the hole (features 4..7 by 5..9) is no key.
    assert not weights[:, 3:9, 4:11].any() and (weights[:, 2, 2] > 0).all()
    masks = np.ones_like(completed.masks)
    assert not attention_weights(inpainter, completed.frames, masks, 6, (24, 30), [2, 9]).any()


def test_a_planted_match_is_where_it_looks(inpainter):
    """The target's visible patch, looked for from its own place, is found in a moved copy."""
    frames = panning(9, shift=4)
    masks = np.zeros(frames.shape[:3], bool)
    masks[6, 40:44, 0:4] = True
    with torch.no_grad():
        inpainter.network.refinement.attention.log_scale.fill_(np.log(60.0))
    weights = attention_weights(inpainter, frames, masks, 6, (24, 32), [4])
    # In frame 4 the scene lies 8 pixels, two features, further right.
    assert np.unravel_index(weights[0].argmax(), weights[0].shape) == (6, 10)


def test_a_chosen_pixel(completed):
    look = Look.parse("a:b:6,24,30")
    assert look == Look("a:b", 6, 24, 30)
    look.check(completed.masks)
    for text in ("a:12,24,30", "a:6,2,30", "a:6,24,99"):
        with pytest.raises(ValueError, match=r"no hole pixel of a \(12 frames of 64x48\); one is"):
            Look.parse(text).check(completed.masks)
    for text in ("a", "a:1,2", ":1,2,3", "a:1,2,-3"):
        with pytest.raises(ValueError, match="SEQUENCE:FRAME,Y,X"):
            Look.parse(text)


def test_an_attention_map(completed, inpainter, tmp_path: Path):
    path = attention_map(tmp_path / "sub" / "map.png", inpainter, completed)
    picture = cv2.imread(str(path))
    assert picture.shape[0] == 48 + 22 and picture.shape[1] >= 4 * 64
    without = Completed("b", completed.frames, np.zeros_like(completed.masks), {})
    with pytest.raises(ValueError, match="no hole"):
        attention_map(tmp_path / "b.png", inpainter, without)
