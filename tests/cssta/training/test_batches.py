from __future__ import annotations

import numpy as np
import pytest
import torch

from cssta.training.batches import to_network, to_uint8

CPU = torch.device("cpu")


def test_every_level_survives_the_round_trip(batch):
    batch["frames"].reshape(-1)[:256] = np.arange(256)
    frames, masks = to_network(batch, CPU)
    assert frames.shape == (2, 3, 3, 32, 32) and masks.shape == (2, 3, 1, 32, 32)
    assert frames.min() >= -1 and frames.max() <= 1
    assert np.array_equal(to_uint8(frames), batch["frames"])
    assert np.array_equal(masks[:, :, 0].numpy() > 0.5, batch["masks"])


def test_arrays_and_tensors_alike(batch):
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    for one, two in zip(to_network(batch, CPU), to_network(tensors, CPU), strict=True):
        assert torch.equal(one, two)


def test_levels_are_rounded_and_clamped():
    frames = torch.tensor([-3.0, 3.0, 2 * 100.6 / 255 - 1]).view(3, 1, 1)
    assert to_uint8(frames).tolist() == [[[0, 255, 101]]]


@pytest.mark.parametrize(
    "frames, masks, message",
    [
        ((2, 3, 8, 8), (2, 3, 8, 8), "frames"),
        ((2, 3, 8, 8, 1), (2, 3, 8, 8), "frames"),
        ((2, 3, 8, 8, 3), (2, 2, 8, 8), "masks"),
        ((2, 3, 8, 10, 3), (2, 3, 8, 10), "multiples of 4"),
    ],
)
def test_shapes_that_do_not_belong_together(frames, masks, message):
    batch = {"frames": np.zeros(frames, np.uint8), "masks": np.zeros(masks, bool)}
    with pytest.raises(ValueError, match=message):
        to_network(batch, CPU)
