from __future__ import annotations

import numpy as np
import pytest

from cssta.survey import Scene, survey
from cssta.video import (
    Box,
    MaskSpec,
    VideoError,
    file_source,
    open_masks,
    open_source,
    write_frame_folder,
)
from tests.cssta.media import make_video
from tests.cssta.test_scenes import shot

FRAMES = np.concatenate([shot(10, 1), shot(14, 2), shot(6, 3)])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_source(make_video(tmp_path_factory.mktemp("survey") / "a.mp4", FRAMES))


def test_scenes_with_their_holes(source):
    spec = MaskSpec(boxes=(Box(10, 20, 30, 8, end=0.2), Box(100, 70, 99, 99, start=0.6, end=0.7)))
    seen = []
    found = survey(source, open_masks(spec, source), progress=lambda *at: seen.append(at))
    assert found.frames == 30 and seen == [(number + 1, 30) for number in range(30)]
    assert found.scenes == (
        Scene(0, 10, (20, 28, 10, 40)),
        Scene(10, 24, (70, 90, 100, 160)),
        Scene(24, 30, None),
    )
    holes = [240 if n <= 4 else 60 * 20 if 15 <= n <= 16 else 0 for n in range(30)]
    np.testing.assert_array_equal(found.holes, holes)


def test_without_cuts_there_is_one_scene(source):
    masks = open_masks(MaskSpec(boxes=(Box(0, 0, 5, 5),)), source)
    assert survey(source, masks, cuts=False).scenes == (Scene(0, 30, (0, 5, 0, 5)),)


def test_boxes_of_moving_holes_are_united(tmp_path, source):
    masks = np.zeros((30, 90, 160, 3), np.uint8)
    for number in range(30):
        masks[number, number : number + 3, 2 * number : 2 * number + 5] = 255
    folder = write_frame_folder(tmp_path / "m", masks)
    found = survey(source, open_masks(MaskSpec(folder), source))
    assert [scene.box for scene in found.scenes] == [
        (0, 12, 0, 23),
        (10, 26, 20, 51),
        (24, 32, 48, 63),
    ]
    assert (found.holes == 15).all()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_rotated_video_is_surveyed_upright(tmp_path, rotation):
    turned = np.rot90(FRAMES, -rotation // 90, (1, 2))
    source = open_source(make_video(tmp_path / "a.mp4", turned, rotation=rotation))
    masks = open_masks(MaskSpec(boxes=(Box(10, 20, 30, 8),)), source)
    found = survey(source, masks)
    assert [scene.start for scene in found.scenes] == [0, 10, 24]
    assert found.scenes[0].box == (20, 28, 10, 40)


def test_a_caption_in_the_hole_makes_no_scene(tmp_path):
    frames = shot(30, 8)
    frames[15:, 10:80, 20:140] = (255, 0, 0)
    source = open_source(make_video(tmp_path / "a.mp4", frames))
    masks = open_masks(MaskSpec(boxes=(Box(18, 8, 124, 74),)), source)
    assert len(survey(source, masks).scenes) == 1


def test_frames_come_one_at_a_time(source, monkeypatch):
    alive, most = [0], [0]
    plain = file_source.FileSource._wrap

    class Counted(file_source.SourceFrame):
        def __del__(self):
            alive[0] -= 1

    def counting(self, index, frame):
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        wrapped = plain(self, index, frame)
        return Counted(wrapped.index, wrapped.native, wrapped.rotation)

    monkeypatch.setattr(file_source.FileSource, "_wrap", counting)
    survey(source, open_masks(MaskSpec(boxes=(Box(0, 0, 5, 5),)), source))
    assert most[0] <= 3


def test_a_mask_that_ends_early_is_an_error(tmp_path, source):
    folder = write_frame_folder(tmp_path / "m", np.zeros((30, 90, 160, 3), np.uint8))
    masks = open_masks(MaskSpec(folder), source)
    (folder / "00029.png").unlink()
    with pytest.raises(VideoError) as caught:
        survey(source, masks)
    assert caught.value.reason == "missing"
