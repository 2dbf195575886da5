from __future__ import annotations

import cv2
import numpy as np
import pytest

from cssta.metrics import psnr
from cssta.propagation import MEMORY, Propagation, smooth

HEIGHT, WIDTH, FRAMES = 48, 64, 9


def texture(height: int, width: int) -> np.ndarray:
    """Noise of several scales, as photographs have: uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    total = np.full((height, width, 3), 128, np.float32)
    for cell in (24, 8, 3):
        noise = rng.uniform(-40, 40, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)


def scene(dx: int, dy: int = 0, frames: int = FRAMES) -> np.ndarray:
    """A texture that moves by whole pixels: uint8 (T, H, W, 3)."""
    wide = texture(HEIGHT + dy * frames, WIDTH + dx * frames)
    return np.stack(
        [wide[dy * t : dy * t + HEIGHT, dx * t : dx * t + WIDTH] for t in range(frames)]
    )


def bars(frames: int = FRAMES, width: int = 6, speed: int = 4) -> np.ndarray:
    """An upright bar that walks over the picture: bool (T, H, W)."""
    masks = np.zeros((frames, HEIGHT, WIDTH), bool)
    for t in range(frames):
        masks[t, 8:40, 10 + speed * t : 10 + speed * t + width] = True
    return masks


def run(frames, masks, **settings):
    pairs = list(Propagation(**settings).run(zip(frames, masks, strict=True)))
    return np.stack([frame for frame, _ in pairs]), np.stack([mask for _, mask in pairs])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_still_scene_is_restored_exactly_where_any_frame_in_reach_sees_it(dtype):
    frames = np.repeat(scene(0)[:1], FRAMES, axis=0).astype(dtype) * np.iinfo(dtype).max // 255
    masks = bars()
    masks[:, 20:24, 30:50] = True  # never seen
    hidden = np.where(masks[..., None], 0, frames).astype(dtype)
    result, unseen = run(hidden, masks, reach=2, ring=0, speck=0)
    for t in range(FRAMES):
        nearby = masks[max(0, t - 2) : t + 3].all(axis=0)
        # Flow over the hole is not exactly 0; an edge of the hole may stay unseen for its sake.
        assert (unseen[t] >= nearby).all() and (unseen[t] & ~nearby).mean() < 0.02
        seen = masks[t] & ~unseen[t]
        error = np.abs(result[t][seen].astype(float) - frames[t][seen]) / np.iinfo(dtype).max
        assert error.mean() < 0.01
    np.testing.assert_array_equal(result[~masks], frames[~masks])


@pytest.mark.parametrize("dx, dy", [(2, 0), (1, 1)])
def test_a_moving_scene_is_restored(dx, dy):
    frames, masks = scene(dx, dy), bars(speed=0)
    masks |= bars(speed=5)
    result, unseen = run(np.where(masks[..., None], np.uint8(0), frames), masks)
    seen = masks & ~unseen
    assert seen.sum() > 0.8 * masks.sum()
    borrowed = psnr(result, frames, seen)
    guess = np.stack([smooth(f, m) for f, m in zip(frames, masks, strict=True)])
    assert borrowed.mean() > 30 and borrowed.mean() > psnr(guess, frames, seen).mean() + 5


def test_what_stands_in_the_hole_does_not_matter():
    frames, masks = scene(2), bars()
    garbage = np.random.default_rng(0).integers(0, 256, frames.shape, dtype=np.uint8)
    first = run(np.where(masks[..., None], garbage, frames), masks)
    second = run(np.where(masks[..., None], np.uint8(9), frames), masks)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_the_ring_takes_out_a_change_of_exposure():
    frames = np.repeat(scene(0)[:1] // 2 + 40, FRAMES, axis=0)
    masks = bars(width=8, speed=8)
    brighter = frames.copy()
    brighter[1::2] += 24
    errors = {}
    for ring in (0, 4):
        result, unseen = run(np.where(masks[..., None], np.uint8(0), brighter), masks, ring=ring)
        seen = masks & ~unseen
        errors[ring] = np.abs(result[seen].astype(int) - brighter[seen]).mean()
    assert errors[4] < errors[0] / 2


def test_frames_without_a_hole_are_handed_through_as_they_are():
    frames, masks = scene(1), bars()
    masks[3] = False
    pairs = list(zip(frames, masks, strict=True))
    results = list(Propagation().run(pairs))
    assert results[3][0] is pairs[3][0] and results[3][1] is pairs[3][1]


def test_order_length_and_latency():
    frames, masks = scene(1, frames=40), np.zeros((40, HEIGHT, WIDTH), bool)
    taken = 0

    def pairs():
        nonlocal taken
        for frame, mask in zip(frames, masks, strict=True):
            taken += 1
            yield frame, mask

    settings = Propagation(reach=3, passes=2)
    for number, (frame, _) in enumerate(settings.run(pairs())):
        np.testing.assert_array_equal(frame, frames[number])
        assert taken <= number + 1 + settings.latency
    assert number == len(frames) - 1


def test_a_result_depends_only_on_frames_within_its_latency():
    frames, masks = scene(1, frames=24), bars(frames=24, speed=1)
    settings = dict(reach=4, passes=2)
    assert Propagation(**settings).latency == 6
    whole, left = run(frames, masks, **settings)
    part, part_left = run(frames[4:20], masks[4:20], **settings)
    np.testing.assert_array_equal(part[6:-6], whole[10:14])
    np.testing.assert_array_equal(part_left[6:-6], left[10:14])


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 16)])
def test_any_size(size):
    frames = np.full((3, *size, 3), 80, np.uint8)
    masks = np.zeros((3, *size), bool)
    masks[1] = True
    result, unseen = run(frames, masks)
    np.testing.assert_array_equal(result, frames)
    assert not unseen.any()


def test_a_hole_that_is_everything_stays_unseen():
    frames, masks = scene(1, frames=3), np.ones((3, HEIGHT, WIDTH), bool)
    _, unseen = run(frames, masks)
    assert unseen.all()
    assert list(Propagation().run([])) == []


def test_large_frames_are_borrowed_from_less_far():
    settings = Propagation()
    assert settings.within(MEMORY, 432 * 240 * 3) == settings
    for size in (1080 * 1920 * 3, 2160 * 3840 * 3, 2160 * 3840 * 6):
        fitting = settings.within(MEMORY, size)
        assert 1 <= fitting.reach < settings.reach
        assert 2 * fitting.latency * size * 8 / 3 <= 1.2 * MEMORY
    assert settings.within(1, 10**9).reach == 1


def test_specks_keep_the_smooth_guess():
    frames, masks = scene(0, frames=1), np.zeros((1, HEIGHT, WIDTH), bool)
    masks[0, 10:14, :] = True  # thin, however long
    masks[0, 20:30, 30:40] = True
    masks[0, 44:, 60:] = True  # in the corner, where the frame ends but the hole may not
    result, unseen = run(frames, masks)
    expected = masks.copy()
    expected[0, 10:14] = False
    np.testing.assert_array_equal(unseen, expected)
    np.testing.assert_array_equal(result[0, 10:14], smooth(frames[0], masks[0])[10:14])


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_as_sources_hand_out():
    frames, masks = scene(1, frames=3), bars(frames=3)
    frames.flags.writeable = masks.flags.writeable = False
    run(frames, masks)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_does_not_fit_the_ring_is_not_borrowed(dtype):
    """An unnoticed cut: flow finds its way into another scene, but the ring gives it away."""
    scenes = scene(0, frames=1), 255 - np.flip(scene(0, frames=3), (1, 2))
    frames = np.concatenate(scenes).astype(dtype) * (np.iinfo(dtype).max // 255)
    masks = np.zeros(frames.shape[:3], bool)
    masks[0, 16:32, 24:40] = True  # only the other scene "sees" what is behind
    _, trusting = run(frames, masks, doubt=np.inf, tolerance=1e3)
    _, careful = run(frames, masks, tolerance=1e3)
    share = [np.mean(unseen[masks]) for unseen in (trusting, careful)]
    assert share[0] < 0.3 and share[1] > 0.8
