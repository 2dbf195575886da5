from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

import cssta
from cssta import cli
from cssta.video import probe, read_frames, write_frame_folder, write_video
from tests.cssta.media import clip, cut_short, encode, sound_only

SHOT = clip(4, 32, 48)


class Painter:
    """Stands in for the model: holes become black."""

    loaded: tuple = ()

    @classmethod
    def load(cls, source=None, device=None):
        cls.loaded = (source, device)
        return cls()

    def inpaint(self, frames, masks, progress=None):
        for done in range(len(frames)):
            progress(done + 1, len(frames))
        return np.where(masks[..., None], 0, frames).astype(np.uint8)


@pytest.fixture
def painter(monkeypatch):
    monkeypatch.setattr(cssta, "Inpainter", Painter)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "shot.mp4", SHOT, 25)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:16, 8:16] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    return folder


def command(inputs, output, *more, video="shot.mp4", mask="mask.png"):
    paths = [str(inputs / video), "--mask", str(inputs / mask), "--output", str(output)]
    return cli.main(["inpaint", *paths, *map(str, more)])


def test_a_video_comes_out_completed(inputs, tmp_path, painter, capsys):
    output = tmp_path / "out" / "done.mp4"
    assert command(inputs, output, "--model", "m", "--device", "cpu", "--crf", 4) == 0
    assert Painter.loaded == ("m", "cpu")
    info, frames = probe(output), read_frames(output)
    assert (info.frames, info.height, info.width, info.fps) == (4, 32, 48, 25)
    assert frames[:, 10:14, 10:14].max() < 20
    assert np.abs(frames[:, 20:].astype(int) - SHOT[:, 20:]).mean() < 2
    assert "done.mp4: 4 frames, 48x32" in capsys.readouterr().out


def test_frame_folders_in_and_out_are_lossless(inputs, tmp_path, painter):
    write_frame_folder(inputs / "frames", SHOT)
    assert command(inputs, tmp_path / "out", video="frames") == 0
    frames = read_frames(tmp_path / "out")
    hole = np.zeros(SHOT.shape[:3], bool)
    hole[:, 8:16, 8:16] = True
    np.testing.assert_array_equal(frames[~hole], SHOT[~hole])
    assert (frames[hole] == 0).all()
    assert command(inputs, tmp_path / "out.mp4", "--fps", 12, video="frames") == 0
    assert probe(tmp_path / "out.mp4").fps == 12


def test_dilate_widens_the_hole(inputs, tmp_path, painter):
    for pixels, width in ((0, 8), (3, 14)):
        output = tmp_path / f"out{pixels}"
        assert command(inputs, output, "--dilate", pixels) == 0
        assert (read_frames(output)[0, 12].max(axis=-1) == 0).sum() == width


def test_an_output_is_replaced_only_when_told(inputs, tmp_path, painter, capsys):
    output = tmp_path / "done.mp4"
    output.write_text("precious")
    assert command(inputs, output) == 2
    assert "--overwrite" in capsys.readouterr().err and output.read_text() == "precious"
    assert command(inputs, output, "--overwrite") == 0
    assert probe(output).frames == 4


def bad_inputs(folder):
    (folder / "text.mp4").write_text("no video")
    (folder / "zero.mp4").touch()
    sound_only(folder / "sound.m4a")
    cut_short(encode(folder / "late.mp4", SHOT, faststart=False), folder / "short.mp4", 0.5)
    write_video(folder / "longer.mp4", clip(5, 32, 48), 25)
    cv2.imwrite(str(folder / "square.png"), np.zeros((32, 32), np.uint8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": "text.mp4"}, ["text.mp4", "not a video"]),
        ({"video": "zero.mp4"}, ["zero.mp4", "zero bytes"]),
        ({"video": "sound.m4a"}, ["sound.m4a", "no video stream"]),
        ({"video": "short.mp4"}, ["short.mp4", "end is missing"]),
        ({"video": "nowhere.mp4"}, ["nowhere.mp4", "no such file"]),
        ({"mask": "nowhere.png"}, ["nowhere.png", "no such picture"]),
        ({"mask": "longer.mp4"}, ["longer.mp4", "5 frames", "the video 4"]),
        ({"mask": "square.png"}, ["square.png", "32x32", "48x32"]),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(inputs, tmp_path, painter, capsys, change, words):
    bad_inputs(inputs)
    assert command(inputs, tmp_path / "done.mp4", **change) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert "Traceback" not in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_outputs_that_make_no_sense(inputs, tmp_path, painter, capsys):
    for output in (tmp_path / "done.avi", inputs / "shot.mp4", inputs):
        assert command(inputs, output, "--overwrite") == 2
        assert str(output) in capsys.readouterr().err
    assert probe(inputs / "shot.mp4").frames == 4


@pytest.mark.parametrize(
    "option",
    [
        ("--crf", "60"),
        ("--dilate", "-1"),
        ("--dilate", "x"),
        ("--fps", "0"),
        ("--device", "abacus"),
        ("--device", "cuda:99"),
    ],
)
def test_options_out_of_range(inputs, tmp_path, painter, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(inputs, tmp_path / "done.mp4", *option)
    assert stopped.value.code == 2 and option[0] in capsys.readouterr().err


@pytest.mark.parametrize(("value", "words"), [(0, "has no hole"), (255, "covers everything")])
def test_masks_that_are_probably_a_mistake_are_noted(
    inputs, tmp_path, painter, caplog, value, words
):
    cv2.imwrite(str(inputs / "flat.png"), np.full((32, 48), value, np.uint8))
    assert command(inputs, tmp_path / "out", mask="flat.png") == 0
    assert words in caplog.text
    assert (read_frames(tmp_path / "out").max() == 0) == bool(value)


def test_interrupting_leaves_nothing(inputs, tmp_path, painter, monkeypatch, capsys):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Painter, "inpaint", stop)
    assert command(inputs, tmp_path / "done.mp4") == 130
    assert "interrupted" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_is_no_model(inputs, tmp_path, capsys):
    assert command(inputs, tmp_path / "done.mp4", "--model", inputs, "--device", "cpu") == 2
    assert str(inputs) in capsys.readouterr().err


@pytest.mark.parametrize(("frames", "size"), [(1, (32, 48)), (3, (33, 47))])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_with_a_real_model(tmp_path, tiny_model, frames, size, share):
    shot = clip(frames, *size)
    write_frame_folder(tmp_path / "in", shot)
    mask = np.zeros(size, np.uint8)
    mask[: round(size[0] * share)] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    more = ("--model", tiny_model, "--device", "cpu")
    assert command(tmp_path, tmp_path / "out", *more, video="in") == 0
    result = read_frames(tmp_path / "out")
    assert result.shape == shot.shape
    np.testing.assert_array_equal(result[:, mask == 0], shot[:, mask == 0])
    assert command(tmp_path, tmp_path / "out.mp4", *more, video="in") == 0
    info = probe(tmp_path / "out.mp4")
    assert (info.frames, info.height, info.width) == (frames, *size)


def test_the_module_runs_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cssta", "inpaint", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0 and "--mask" in capsys.readouterr().out
