from __future__ import annotations

import numpy as np
import pytest
import torch

from cssta.pixels import to_levels, to_tensors

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (5, 7)])
def test_there_and_back(dtype, size):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype)
    image, mask = to_tensors(frame, rng.random(size) < 0.5, CPU)
    assert image.shape[2] % 4 == image.shape[3] % 4 == 0 and mask.shape[2:] == image.shape[2:]
    back = to_levels(image[0], *size, np.dtype(dtype))
    assert back.dtype == dtype and np.array_equal(back, frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_survives_and_the_ends_are_one(dtype):
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    frame = levels.reshape(16, -1, 1).repeat(3, axis=2)
    image, _ = to_tensors(frame, np.zeros(frame.shape[:2], bool), CPU)
    assert (image.min(), image.max()) == (-1, 1)
    assert np.array_equal(to_levels(image[0], *frame.shape[:2], frame.dtype), frame)
    assert to_levels(image[0] * 3, *frame.shape[:2], frame.dtype).max() == levels[-1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_several_at_once_and_views_of_any_kind(dtype):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, np.iinfo(dtype).max + 1, (3, 6, 5, 3), dtype)
    turned = frames[:, ::-1, ::-1]
    turned.flags.writeable = False
    images = torch.cat([to_tensors(frame, np.ones((6, 5), bool), CPU)[0] for frame in turned])
    back = to_levels(images, 6, 5, np.dtype(dtype))
    assert back.dtype == dtype and np.array_equal(back, turned)


def test_padding_repeats_the_border_and_its_hole():
    frame = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    holes = np.zeros((5, 6), bool)
    holes[4, 2] = True
    image, mask = to_tensors(frame[::-1, ::-1], holes[::-1, ::-1], CPU)
    assert mask[0, 0].sum() == 1 and mask[0, 0, 0, 3] == 1
    image, mask = to_tensors(frame, holes, CPU)
    assert mask[0, 0, 4:, 2].tolist() == [1] * 4 and mask.sum() == 4
    assert torch.equal(image[..., 7], image[..., 5])
