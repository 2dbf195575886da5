from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from cssta.propagation import smooth
from cssta.texture import Texture, TexturePainter

HEIGHT, WIDTH = 72, 96


def gravel(seed: int = 0) -> np.ndarray:
    """Stones of a few pixels, uint8 (2 HEIGHT, 2 WIDTH, 3)."""
    noise = np.random.default_rng(seed).normal(size=(2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.clip(128 + 150 * soft, 0, 255).astype(np.uint8)


@pytest.fixture
def hole() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (50, 36), (20, 14), 20, 0, 360, 1, -1)
    return mask.astype(bool)


def blurred(frame: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """What networks that cannot know would paint: right at the border, nothing in particular
    beyond."""
    return smooth(frame, hole)


def paint(frame, hole, **settings) -> np.ndarray:
    return TexturePainter(Texture(**settings)).paint(blurred(frame, hole), hole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_hole_gets_the_texture_of_its_surroundings(hole, dtype):
    frame = gravel()[:HEIGHT, :WIDTH].astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    result = paint(frame, hole)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result[~hole], frame[~hole])
    inner = cv2.erode(hole.view(np.uint8), np.ones((5, 5))) > 0
    spread = result[inner].std() / frame[~hole].std()
    assert 0.7 < spread < 1.2
    # Neighbours differ as much as in the gravel: no blur, no noise.
    steps = [np.abs(np.diff(part.astype(float), axis=1)) for part in (result, frame)]
    rate = steps[0][inner[:, 1:]].mean() / steps[1].mean()
    assert 0.6 < rate < 1.3


def test_sixteen_bits_look_like_eight(hole):
    frame = gravel()[:HEIGHT, :WIDTH]
    deep = paint(frame.astype(np.uint16) * 257, hole)
    assert np.abs(deep / 257 - paint(frame, hole)).mean() < 2


def test_the_texture_moves_with_the_scene(hole):
    """A camera pans over gravel, the hole stands still in the picture."""
    world, painter = gravel(), TexturePainter(Texture())
    results = []
    for number in range(4):
        frame = world[20 : 20 + HEIGHT, 3 * number : 3 * number + WIDTH]
        results.append(painter.paint(blurred(frame, hole), hole, number).astype(float))
    alone = [
        TexturePainter(Texture())
        .paint(blurred(world[20 : 20 + HEIGHT, 3 * n : 3 * n + WIDTH], hole), hole, n)
        .astype(float)
        for n in range(4)
    ]

    def unrest(frames) -> float:
        inner = cv2.erode(hole.view(np.uint8), np.ones((11, 11)))[:, 3:] > 0
        pairs = itertools.pairwise(frames)
        return float(np.mean([np.abs(a[:, 3:] - b[:, :-3])[inner].mean() for a, b in pairs]))

    assert unrest(results) < 0.6 * unrest(alone)


def test_layers_stay_layers(hole):
    """Green below, blue above: the networks' guess fades, and yet nothing green rises."""
    frame = gravel()[:HEIGHT, :WIDTH] // 4
    frame[:36, :, 2] += 160
    frame[36:, :, 1] += 160
    result = paint(frame, hole).astype(int)
    y, x = hole.nonzero()
    blue = result[y, x, 2] > result[y, x, 1]
    assert blue[y < 30].mean() > 0.95 and blue[y > 42].mean() < 0.05


def test_no_seam(hole):
    """Light falls off to one side; copies from elsewhere take the shade of where they go."""
    shade = np.linspace(0.3, 1, WIDTH)[None, :, None]
    frame = (gravel()[:HEIGHT, :WIDTH] * shade).astype(np.uint8)
    result = paint(frame, hole).astype(float)
    edge = cv2.dilate(hole.view(np.uint8), np.ones((3, 3))).astype(bool) ^ hole
    smooth = cv2.blur(result, (7, 7)) - cv2.blur(frame.astype(float), (7, 7))
    assert np.abs(smooth[edge]).mean() < 8


def test_nothing_to_do_and_nothing_to_do_it_with(hole):
    frame = gravel()[:HEIGHT, :WIDTH]
    painter = TexturePainter(Texture())
    assert painter.paint(frame, np.zeros_like(hole)) is frame
    everything = np.ones_like(hole)
    np.testing.assert_array_equal(painter.paint(frame, everything), frame)
    tiny = frame[:5, :5]
    np.testing.assert_array_equal(painter.paint(tiny, tiny[..., 0] > 99), tiny)


def test_a_hole_that_grows_through_the_bounds_of_its_levels(hole):
    """Shifts are carried from one level to another."""
    painter = TexturePainter(Texture(coarse=100, fine=400))
    world = gravel()[:HEIGHT, :WIDTH]
    sizes = (3, 15, 3)
    for number, size in enumerate(sizes):
        grown = cv2.dilate(hole.view(np.uint8), np.ones((size, size))) > 0
        if size == 3:
            grown = cv2.erode(hole.view(np.uint8), np.ones((11, 11))) > 0
        result = painter.paint(blurred(world, grown), grown, number)
        np.testing.assert_array_equal(result[~grown], world[~grown])
        assert result[grown].std() > 0.5 * world.std()


def test_a_hole_that_opens_elsewhere_gets_shifts_of_its_own(hole):
    """Those of the nearest patch, or dice, would scatter stones over a smooth wall."""
    world = gravel()[:HEIGHT, :WIDTH].copy()
    world[:, :28] = np.linspace(90, 140, HEIGHT)[:, None, None]
    painter = TexturePainter(Texture())
    for number in range(2):
        painter.paint(blurred(world, hole), hole, number)
    more = hole.copy()
    more[20:52, 5:20] = True
    result = painter.paint(blurred(world, more), more, 2)
    wall = slice(20, 52), slice(5, 20)
    assert np.abs(result[wall].astype(int) - world[wall]).max() < 12


def test_the_same_again(hole):
    frame = gravel()[:HEIGHT, :WIDTH]
    np.testing.assert_array_equal(paint(frame, hole), paint(frame, hole))


def test_another_goes_on_where_one_was_saved(hole, tmp_path):
    world = gravel()
    shots = [world[20 : 20 + HEIGHT, 2 * n : 2 * n + WIDTH] for n in range(4)]
    one, first = (TexturePainter(Texture()) for _ in range(2))
    whole = [one.paint(blurred(shot, hole), hole, n) for n, shot in enumerate(shots)]
    for number in range(2):
        first.paint(blurred(shots[number], hole), hole, number)
    first.save(tmp_path / "kept.npz")
    second = TexturePainter(Texture(), tmp_path / "kept.npz")
    again = blurred(shots[1], hole)
    assert second.paint(again, hole, 1) is again  # that is done
    for number in (2, 3):
        result = second.paint(blurred(shots[number], hole), hole, number)
        np.testing.assert_array_equal(result, whole[number])
    fresh = TexturePainter(Texture())
    fresh.save(tmp_path / "empty.npz")
    start = TexturePainter(Texture(), tmp_path / "empty.npz")
    np.testing.assert_array_equal(start.paint(blurred(shots[0], hole), hole, 0), whole[0])
