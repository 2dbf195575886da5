"""Protocols are pinned: another number here is another benchmark."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from cssta.evaluation.protocols import (
    E2FGVI,
    PAPER,
    freeform_holes,
    laid_over,
    mask_digest,
    protocol,
    scale_frames,
)


def test_what_is_pinned():
    assert (PAPER.height, PAPER.width, PAPER.window) == (256, 256, 7)
    assert (E2FGVI.height, E2FGVI.width, E2FGVI.window, E2FGVI.grow) == (240, 432, 65, 4)
    # These holes are what anyone gets; should they change, published tables have to be redone.
    assert mask_digest(freeform_holes(PAPER, "dog", 8)) == "bdaa570a8a8b"
    assert mask_digest(freeform_holes(E2FGVI, "dog", 8)) == "3150f2d88dd9"


def test_holes_depend_on_seed_and_name_and_keep_their_size():
    masks = freeform_holes(PAPER, "dog", 12)
    assert masks.shape == (12, 256, 256) and masks.mean() == pytest.approx(0.16, abs=0.015)
    assert (freeform_holes(PAPER, "dog", 12) == masks).all()
    others = [freeform_holes(PAPER, "cows", 12), freeform_holes(replace(PAPER, seed=1), "dog", 12)]
    assert len({mask_digest(m) for m in (masks, *others)}) == 3
    still = freeform_holes(E2FGVI, "dog", 3)
    assert (still == still[0]).all()


def test_digests_tell_shape_and_content_apart():
    masks = np.zeros((2, 8, 16), bool)
    one = masks.copy()
    one[1, 7, 15] = True
    assert len({mask_digest(m) for m in (masks, one, masks.reshape(2, 16, 8))}) == 3
    assert mask_digest(masks) == mask_digest(masks.copy())


def test_unknown_protocol_names_the_known():
    with pytest.raises(ValueError, match="paper, e2fgvi"):
        protocol("davis")
    assert protocol("paper", "objects", seed=3).seed == 3


def test_frames_are_scaled_as_the_protocol_says():
    rng = np.random.default_rng(0)
    frames = cv2.GaussianBlur(rng.integers(0, 256, (480, 854, 3), np.uint8), (0, 0), 2)[None]
    area = scale_frames(frames, PAPER)
    expected = cv2.resize(frames[0], (256, 256), interpolation=cv2.INTER_AREA)
    assert (area[0] == expected).all()
    # The field's scripts scale by Pillow's default filter.
    pillow = np.asarray(Image.fromarray(frames[0]).resize((432, 240), Image.BICUBIC))
    assert np.abs(scale_frames(frames, E2FGVI)[0].astype(int) - pillow).max() <= 1
    same = np.zeros((1, 256, 256, 3), np.uint8)
    assert scale_frames(same, PAPER) is same


def test_masks_of_another_length_and_size_run_back_and_forth():
    masks = np.zeros((3, 512, 512), bool)
    for index in range(3):
        masks[index, 100 : 140 + 20 * index, 100:140] = True
    holes = laid_over(replace(PAPER, holes="objects"), masks, 7)
    areas = holes.sum(axis=(1, 2))
    assert holes.shape == (7, 256, 256)
    assert list(areas) == [areas[i] for i in (0, 1, 2, 1, 0, 1, 2)]
    assert areas[0] == 22 * 22  # (40 + 4) / 2: the square grows the mask before it is scaled
    assert (laid_over(replace(PAPER, holes="objects"), masks[:1], 4) == holes[0]).all()


def test_given_masks_are_dilated_as_the_field_does():
    masks = np.zeros((1, 240, 432), bool)
    masks[0, 100, 200] = True
    holes = laid_over(replace(E2FGVI, holes="folder"), masks, 1)
    assert holes.sum() == 41  # a diamond of radius 4
    assert holes[0, 96, 200] and not holes[0, 95, 200] and not holes[0, 97, 202]
