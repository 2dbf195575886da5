"""A dry run looks into its sample for a moment, whatever its length, and finds what is there."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from cssta.video.file_source import FileSource
from pipelines import batch_dry_run as module
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import VideoTask
from tests.pipelines.one_process import MODEL, config, picture_clip, settings_of

FRAMES, FPS, EVERY = 96, 24, 12  # a key frame so often


def write_film(path: Path, keys: int = EVERY) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.gop_size = keys
        stream.options = {"sc_threshold": "0"}  # none at what looks like a cut
        for pixels in np.concatenate([picture_clip(32)] * (FRAMES // 32)):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Numbers of the frames that were decoded, also on the way to others."""
    monkeypatch.setattr(module, "LOOKED", 24)
    numbers, real = [], FileSource._decoded_from

    def decode(self, start: int):
        for index, frame in real(self, start):
            numbers.append(index)
            yield index, frame

    monkeypatch.setattr(FileSource, "_decoded_from", decode)
    return numbers


def look(tmp_path: Path, **inference) -> module.Look:
    cfg = config(tmp_path, inference=inference)
    task: VideoTask
    (task,) = plan_batch(cfg, MODEL).tasks
    return module.look_task(json.dumps(vars(task)), settings_of(cfg))


def test_a_long_video_is_looked_at_in_several_places(tmp_path: Path, decoded: list[int]):
    write_film(tmp_path / "in/a.mp4")
    half = {"masks": f"box:0,0,24,32@{FRAMES / FPS / 2}-"}  # of each picture, from the middle on
    frames, height, width, share, with_hole = look(tmp_path, **half)
    assert (frames, height, width, with_hole) == (FRAMES, 32, 48, FRAMES // 2)
    assert share == pytest.approx(0.25)
    assert len(decoded) <= 24 + module.SPANS and max(decoded) >= 72


def test_without_places_to_start_from_its_beginning_has_to_do(tmp_path: Path, decoded: list[int]):
    write_film(tmp_path / "in/a.mp4", keys=500)
    assert look(tmp_path, masks="box:0,0,24,32")[0] == FRAMES
    assert len(decoded) <= 25 and max(decoded) <= 24


def test_a_short_video_is_looked_through(tmp_path: Path, decoded: list[int], monkeypatch):
    monkeypatch.setattr(module, "LOOKED", FRAMES)
    write_film(tmp_path / "in/a.mp4")
    seen = look(tmp_path, masks="box:0,0,24,32@0.0-0.49")
    assert (seen[0], seen[4]) == (FRAMES, 12) and sorted(decoded) == list(range(FRAMES))


def test_a_folder_of_frames_is_looked_at_in_several_places(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "LOOKED", 4)
    (tmp_path / "in/walk").mkdir(parents=True)
    for number, pixels in enumerate(picture_clip(8)):
        cv2.imwrite(str(tmp_path / f"in/walk/{number}.png"), pixels)
    box = f"box:0,0,24,32@{4 / 24}-"  # (24 frames a second)
    assert look(tmp_path, masks=box)[::4] == (8, 4)
    (tmp_path / "in/walk/1.png").write_text("no picture")  # none of those that are looked at
    assert look(tmp_path, masks=box)[::4] == (8, 4)
