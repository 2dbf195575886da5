"""Frames by number from a video, a folder, a prepared folder or a picture; and camera moves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.video import VideoError
from pipelines import clip_frames
from pipelines.clip_frames import camera_clip, frame_reader, read_picture
from pipelines.clip_plan import ClipRow
from pipelines.data_config import DataConfig
from pipelines.storage import StorageError

CFG = DataConfig(videos="/v", height=32, width=48, references=4)


def picture(path: Path, value, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def test_of_a_video_and_of_a_folder(video_folder: Path, tmp_path: Path):
    with frame_reader(str(video_folder / "b.mp4"), CFG) as read:
        frames = read([9, 1])
    assert frames.shape == (2, 48, 64, 3)
    assert np.abs(frames[..., 2].mean((1, 2)) - [76, 44]).max() < 6
    for number in range(12):  # by their order, not by their text
        picture(tmp_path / "frames" / f"{number:05}.png", 10 * number)
    with frame_reader(str(tmp_path / "frames"), CFG) as read:
        assert read([11, 0, 2]).mean((1, 2, 3)).tolist() == [110, 0, 20]


def test_a_picture_is_every_frame_and_in_its_colours(tmp_path: Path):
    path = picture(tmp_path / "1.PNG", (255, 0, 10))  # (OpenCV's order: blue first)
    with frame_reader(str(path), CFG) as read:
        frames = read([0])
    assert frames.shape == (1, 24, 32, 3) and frames[0, 0, 0].tolist() == [10, 0, 255]


def test_what_a_prepared_folder_does_not_hold_comes_from_where_it_is(video_folder, monkeypatch):
    class Prepared:
        def __contains__(self, uri: str) -> bool:
            return uri.endswith("a.mp4")

        def read(self, uri: str, indices: list[int]) -> np.ndarray:
            return np.full((len(indices), 32, 48, 3), 7, np.uint8)

    monkeypatch.setattr(clip_frames, "open_prepared", lambda folder, endpoint: Prepared())
    cfg = CFG.model_copy(update={"prepared": "/prepared"})
    with frame_reader(str(video_folder / "a.mp4"), cfg) as read:
        assert read([1, 2]).shape == (2, 32, 48, 3)
    with frame_reader(str(video_folder / "b.mp4"), cfg) as read:
        assert read([1]).shape == (1, 48, 64, 3)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "1.jpg").write_bytes(content)
    with pytest.raises(StorageError, match=r"1\.jpg: is no picture; replace or remove it"):
        read_picture(str(tmp_path / "1.jpg"), None)
    with (
        pytest.raises(StorageError, match=r"gone\.mp4: no such file"),
        frame_reader(str(tmp_path / "gone.mp4"), CFG),
    ):
        pass
    (tmp_path / "bad.mp4").write_bytes(content)
    with (
        frame_reader(str(tmp_path / "bad.mp4"), CFG) as read,
        pytest.raises(VideoError, match=r"bad\.mp4"),
    ):
        read([0])


@pytest.mark.parametrize("size", [(24, 32), (400, 60), (32, 48)])
def test_a_camera_move_depends_on_the_clips_seed_alone(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    view = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)

    def clip(seed: int, number: int = 0) -> np.ndarray:
        row = ClipRow(number, "/p/1.jpg", (0,) * 5, False, 0.3, 0.1, seed, None)
        return camera_clip(view, row, 32, 48)

    first = clip(1)
    assert first.shape == (5, 32, 48, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, clip(1, number=8))
    assert (first != clip(2)).any()
    assert all((one != other).any() for one, other in pairwise(first))
    flat = camera_clip(
        np.full((*size, 3), 90, np.uint8),
        ClipRow(0, "/p/1.jpg", (0,) * 5, False, 0, 0, 1, None),
        32,
        48,
    )
    assert set(flat.ravel().tolist()) == {90}  # nothing from beyond the picture's border
