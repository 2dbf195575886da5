from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from cssta.flow import backward_flow, visibility, warp
from tests.cssta.media import picture


def translation(dx: float, dy: float, height: int, width: int) -> torch.Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, height, width)


def test_warp_by_whole_pixels():
    frames = torch.rand(1, 3, 7, 9)
    warped = warp(frames, translation(2, -1, 7, 9))
    assert torch.allclose(warped[..., 1:, :7], frames[..., :-1, 2:], atol=1e-5)
    # Beyond the border, its last pixel is repeated.
    assert torch.allclose(warped[..., 1:, 7:], frames[..., :-1, -1:].expand(-1, -1, -1, 2))


def test_warp_between_pixels():
    frames = torch.arange(6.0).expand(1, 1, 4, 6)
    warped = warp(frames, translation(0.5, 0, 4, 6))
    assert torch.allclose(warped[..., :5], frames[..., :5] + 0.5, atol=1e-5)


def test_no_flow_no_change():
    for size in ((5, 8), (1, 1), (1, 7)):
        frames = torch.rand(2, 3, *size)
        assert torch.allclose(warp(frames, torch.zeros(2, 2, *size)), frames, atol=1e-6)


def test_flow_of_a_shifted_picture_takes_it_back():
    rng = np.random.default_rng(0)
    scene = picture(80, 100) + rng.normal(0, 12, (80, 100, 1)).cumsum(0).cumsum(1) % 40
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    previous, current = scene[4:68, 6:86], scene[6:70, 3:83]
    flow = backward_flow(np.ascontiguousarray(current), np.ascontiguousarray(previous))
    assert flow.shape == (64, 80, 2) and flow.dtype == np.float32
    # A pixel (x, y) of `current` stands at (x - 3, y + 2) in `previous`.
    assert np.allclose(np.median(flow[16:-16, 16:-16], axis=(0, 1)), (-3, 2), atol=0.25)


def test_flow_of_low_and_wide_frames():
    """OpenCV's quick preset alone ends the process here, so this runs in one of its own."""
    program = """
import numpy as np
from cssta.flow import backward_flow
for size in ((16, 200), (24, 320), (31, 320), (17, 320), (1, 1), (5, 64)):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for _ in range(10):
        flow = backward_flow(frame, np.roll(frame, 2, axis=1))
    assert flow.shape == (*size, 2) and np.isfinite(flow).all()
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_visibility_sums_squares():
    current = torch.zeros(1, 3, 1, 2)
    previous = torch.zeros(1, 3, 1, 2)
    previous[0, :, 0, 1] = torch.tensor([0.2, -0.2, 0.0])  # cancels if summed first
    seen = visibility(current, previous)
    assert seen.shape == (1, 1, 1, 2)
    assert seen[..., 0] == 1
    expected = torch.exp(torch.tensor(-50 * 2 * 0.1**2))
    assert torch.allclose(seen[..., 1], expected)
