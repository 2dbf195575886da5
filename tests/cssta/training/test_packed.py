from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from cssta.training.packed import PackedClips, pack

SIZES = {"a": (9, 40, 60), "b": (5, 33, 47), "c": (12, 50, 36), "short": (2, 40, 40)}
HOW = dict(frames=4, size=32, max_stride=3, ratio=(0.1, 0.3))


@pytest.fixture
def clips() -> list[tuple[str, str, np.ndarray]]:
    """Frame number n is n throughout; scene x holds two of the clips."""
    scenes = {"a": "x", "b": "y", "c": "x", "short": "z"}
    made = []
    for name, (length, height, width) in SIZES.items():
        frames = np.broadcast_to(
            np.arange(length, dtype=np.uint8)[:, None, None, None], (length, height, width, 3)
        )
        made.append((name, scenes[name], frames))
    return made


@pytest.fixture
def packed(clips, tmp_path) -> PackedClips:
    assert pack(tmp_path / "new" / "packed", clips) == len(clips)
    return PackedClips(tmp_path / "new" / "packed")


def test_round_trip(clips, packed):
    assert [clip.name for clip in packed.clips] == list(SIZES)
    for clip, (name, group, frames) in zip(packed.clips, clips, strict=True):
        assert (clip.name, clip.group) == (name, group)
        assert np.array_equal(packed.frames(clip), frames)


def test_a_scene_stays_on_one_side(packed):
    for seed in range(8):
        training, held = packed.split(0.3, seed)
        assert {c.name for c in training} | {c.name for c in held} == set(SIZES)
        assert not {c.group for c in training} & {c.group for c in held}
        assert training and held
        assert packed.split(0.3, seed) == (training, held)
    assert len({packed.split(0.3, seed)[1][0].group for seed in range(8)}) > 1


@pytest.mark.parametrize("seed", range(6))
def test_samples_keep_time(packed, seed):
    for clip in packed.clips[:3]:
        video, masks = packed.sample(clip, np.random.default_rng(seed), **HOW)
        assert video.shape == (4, 32, 32, 3) and video.dtype == np.uint8
        assert masks.shape == (4, 32, 32) and masks.dtype == bool and masks.any()
        numbers = video[:, 0, 0, 0].astype(int)
        assert (video == video[:, :1, :1, :1]).all()
        assert len(set(np.diff(numbers))) == 1
        assert 1 <= numbers[1] - numbers[0] <= 3


@pytest.mark.parametrize("scenes, fraction", [(1, 0.1), (3, 1.0), (0, 0.1)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(tmp_path, scenes, fraction):
    video = np.zeros((4, 8, 8, 3), np.uint8)
    # (NumPy cannot map an empty file.)
    pack(tmp_path, [(f"{i}", f"{i}", video) for i in range(max(1, scenes))])
    packed = PackedClips(tmp_path)
    packed.clips = packed.clips[:scenes]
    with pytest.raises(ValueError, match=f"{scenes} scenes held out.*two scenes or more"):
        packed.split(fraction)


def test_single_frames(packed):
    seen = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        video, masks = packed.sample(packed.clips[1], rng, **{**HOW, "frames": 1})
        assert video.shape == (1, 32, 32, 3) and masks.shape == (1, 32, 32)
        seen.add(int(video[0, 0, 0, 0]))
    assert seen == set(range(5))


def test_every_part_of_a_frame_is_seen_in_both_directions(tmp_path):
    scene = np.zeros((4, 40, 80, 3), np.uint8)
    scene[..., 0] = np.arange(80)
    pack(tmp_path, [("a", "a", scene)])
    packed = PackedClips(tmp_path)
    rng = np.random.default_rng(0)
    rows = [packed.sample(packed.clips[0], rng, **HOW)[0][0, 0, :, 0] for _ in range(60)]
    slopes = {bool(row[-1] > row[0]) for row in rows}
    assert slopes == {False, True}
    assert min(row.min() for row in rows) <= 3 and max(row.max() for row in rows) >= 76


def test_batches_repeat_by_seed_and_never_end(packed):
    def some(seed):
        return list(islice(packed.batches(packed.clips, batch=3, seed=seed, **HOW), 6))

    one, two, other = some(1), some(1), some(2)
    for a, b in zip(one, two, strict=True):
        assert a["frames"].shape == (3, 4, 32, 32, 3) and a["masks"].shape == (3, 4, 32, 32)
        assert np.array_equal(a["frames"], b["frames"])
        assert np.array_equal(a["masks"], b["masks"])
    pairs = zip(one, other, strict=True)
    assert any(not np.array_equal(a["masks"], b["masks"]) for a, b in pairs)


def test_clips_that_are_too_short_are_left_out(packed):
    with pytest.raises(ValueError, match="no clip has 4 frames"):
        next(packed.batches(packed.clips[3:], batch=1, seed=0, **HOW))


def test_small_clips_are_enlarged(packed):
    video, _ = packed.sample(packed.clips[1], np.random.default_rng(0), **{**HOW, "size": 64})
    assert video.shape == (4, 64, 64, 3)
