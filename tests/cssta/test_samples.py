from __future__ import annotations

import sys

import numpy as np
import pytest

from cssta import samples
from cssta.video import probe, read_frames, read_masks, write_video

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

SIZE = (96, 160)


@pytest.fixture(scope="module")
def clips():
    return [samples.render(index, 0, 24, SIZE) for index in range(len(samples.SCENES))]


def test_every_scene_fills_the_frame(clips):
    for frames, _ in clips:
        assert frames.shape == (24, *SIZE, 3) and frames.dtype == np.uint8
        for edge in (frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]):
            # A camera that leaves its photograph shows whole edges of black.
            assert (edge.max(axis=-1) < 3).all(axis=1).sum() == 0


def test_motion_is_there_and_is_smooth(clips):
    for frames, _ in clips:
        steps = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
        assert steps.min() > 0.5, "two frames are alike"
        assert steps.max() < 3 * np.median(steps), "the picture jumps"


def test_the_object_is_in_every_frame_and_moves(clips):
    for _, masks in clips:
        shares = masks.mean(axis=(1, 2))
        assert shares.min() > 0.01 and shares.max() < 0.45
        centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
        assert np.abs(np.diff(centres, axis=0)).max() < 6
        assert np.linalg.norm(centres[-1] - centres[0]) > 0.2 * SIZE[0]


def test_clips_have_the_size_length_and_rate_asked_for_and_are_kept(tmp_path):
    paths = samples.write_samples(tmp_path, count=2, seconds=0.5, fps=12, size=(65, 111), seed=3)
    assert [path.name for path in paths] == ["sample-3-00.mp4", "sample-3-01.mp4"]
    for path in paths:
        info = probe(path)
        assert (info.frames, info.height, info.width, info.fps) == (6, 65, 111, 12)
    before = [path.stat().st_mtime_ns for path in paths]
    samples.write_samples(tmp_path, count=2, seconds=0.5, fps=12, size=(65, 111), seed=3)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_the_seed_decides_the_clip():
    first, again, other = (samples.render(0, seed, 2, (48, 80))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_masks_of_sample_clips_cover_the_object(tmp_path):
    (video,) = samples.write_samples(tmp_path / "v", count=1, seconds=0.25, size=SIZE)
    (folder,) = samples.write_sample_masks(tmp_path / "m", [video])
    assert folder.name == video.stem
    masks = read_masks(folder, 6, *SIZE)
    truth = samples.render(0, 0, 6, SIZE)[1]
    assert (masks & truth).sum() == truth.sum() and masks.mean() < 2 * truth.mean()
    before = folder.stat().st_mtime_ns
    samples.write_sample_masks(tmp_path / "m", [video])
    assert folder.stat().st_mtime_ns == before


def test_other_videos_get_free_form_masks(tmp_path):
    video = write_video(tmp_path / "holiday.mp4", np.full((5, 48, 64, 3), 90, np.uint8), 10)
    (folder,) = samples.write_sample_masks(tmp_path / "m", [video], seed=1)
    masks = read_masks(folder, 5, 48, 64)
    assert 0 < masks.mean() < 0.6
    assert read_frames(folder).shape == (5, 48, 64, 3)


def test_without_the_photographs_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(samples.SamplesUnavailable, match=r"cssta\[demo\]"):
        samples.photograph.__wrapped__("china")
