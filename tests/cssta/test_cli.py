from __future__ import annotations

import json
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from cssta import Inpainter, cli
from cssta.video import open_source, probe, read_frames, write_frame_folder, write_video
from tests.cssta.media import clip, cut_short, encode, make_video, sound_only
from tests.cssta.painter import Painter
from tests.cssta.side_by_side import other_facts, video_facts

SHOT = clip(4, 32, 48)


@pytest.fixture
def painter(monkeypatch):
    """The model's stand-in, and how it was loaded."""
    painter = Painter()
    painter.loaded = []

    def load(*args, **options):
        painter.loaded.append((*args, options))
        return painter

    monkeypatch.setattr(Inpainter, "load", load)
    return painter


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
    assert command(inputs, output, "--model", inputs, "--device", "cpu", "--crf", 4) == 0
    assert painter.loaded == [(str(inputs), "cpu", {"temporal": None})]
    info, frames = probe(output), read_frames(output)
    assert (info.frames, info.height, info.width, info.fps) == (4, 32, 48, 25)
    assert frames[:, 10:14, 10:14].max() < 20
    source = read_frames(inputs / "shot.mp4").astype(int)
    assert np.abs(frames[:, 20:] - source[:, 20:]).mean() < 2
    assert "done.mp4: 4 frames, 48x32, 4 completed" in capsys.readouterr().out
    assert [entry.name for entry in output.parent.iterdir()] == ["done.mp4"]


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
    assert command(inputs, output) == 3
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
        ({"mask": "nowhere.png"}, ["nowhere.png", "no such"]),
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
    for output, code in ((tmp_path / "done.gif", 2), (inputs / "shot.mp4", 3), (inputs, 3)):
        assert command(inputs, output, "--overwrite") == code
        assert str(output) in capsys.readouterr().err
    assert probe(inputs / "shot.mp4").frames == 4


@pytest.mark.parametrize(
    "option",
    [
        ("--crf", "70"),
        ("--dilate", "-1"),
        ("--dilate", "x"),
        ("--fps", "0"),
        ("--device", "abacus"),
        ("--device", "cuda:99"),
        ("--box", "1,2,3"),
        ("--box", "0,0,8,8@2-1"),
        ("--threshold", "255"),
        ("--feather", "-1"),
        ("--preview", "-1"),
    ],
)
def test_options_out_of_range(inputs, tmp_path, painter, option, capsys):
    assert command(inputs, tmp_path / "done.mp4", *option) == 2
    assert option[0] in capsys.readouterr().err
    assert command(inputs, tmp_path / "done.mp4", *option, "--json") == 2
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["reason"], outcome["exit_code"]) == ("usage", 2)
    assert option[0] in outcome["message"]


@pytest.mark.parametrize(("value", "words"), [(0, "has no hole"), (255, "all of it is hole")])
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

    monkeypatch.setattr(Painter, "stream", stop)
    assert command(inputs, tmp_path / "done.mp4") == 130
    assert "interrupted" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_folder_that_is_no_model(inputs, tmp_path, capsys):
    assert command(inputs, tmp_path / "done.mp4", "--model", inputs, "--device", "cpu") == 5
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


def test_boxes_alpha_and_inversion(inputs, tmp_path, painter):
    paths = [str(inputs / "shot.mp4"), "--output"]
    boxes = ["--box", "8,8,4,4", "--box", "40,20,100,100@0.04-0.09"]
    assert cli.main(["inpaint", *paths, str(tmp_path / "boxes"), *boxes]) == 0
    black = read_frames(tmp_path / "boxes").max(axis=-1) == 0
    assert black[:, 8:12, 8:12].all() and black[0].sum() == 16
    assert [bool(frame[20:, 40:].all()) for frame in black] == [False, True, True, False]
    assert command(inputs, tmp_path / "inverse", "--invert") == 0
    black = read_frames(tmp_path / "inverse").max(axis=-1) == 0
    assert (~black).sum(axis=(1, 2)).tolist() == [64] * 4
    clear = np.dstack([SHOT[0], np.full((32, 48), 255, np.uint8)])
    clear[:, :10, 3] = 0
    cv2.imwrite(str(inputs / "clear.png"), clear)
    paths = [str(inputs / "clear.png"), "--output", str(tmp_path / "alpha")]
    assert cli.main(["inpaint", *paths, "--alpha"]) == 0
    black = read_frames(tmp_path / "alpha").max(axis=-1) == 0
    assert black[0, :, :10].all() and not black[0, :, 10:].any()


def test_a_mask_that_is_too_short_may_hold(inputs, tmp_path, painter, caplog):
    write_video(inputs / "two.mp4", np.full((2, 32, 48, 3), 255, np.uint8), 25)
    assert command(inputs, tmp_path / "out", mask="two.mp4") == 2
    assert command(inputs, tmp_path / "out", "--hold-last", mask="two.mp4") == 0
    assert not read_frames(tmp_path / "out").any() and "two.mp4" in caplog.text


def test_feathering_stays_within_the_hole(inputs, tmp_path, painter):
    assert command(inputs, tmp_path / "hard") == 0
    assert command(inputs, tmp_path / "soft", "--feather", 3) == 0
    hard, soft, shot = (
        next(open_source(path).frames()).rgb().astype(int)
        for path in (tmp_path / "hard", tmp_path / "soft", inputs / "shot.mp4")
    )
    outside = np.ones((32, 48), bool)
    outside[8:16, 8:16] = False
    np.testing.assert_array_equal(soft[outside], shot[outside])
    assert (soft[8, 8:16] > hard[8, 8:16]).all() and (soft[11, 11] == hard[11, 11]).all()


@pytest.fixture
def tracks(tmp_path):
    """A video with everything that others lose."""
    return make_video(
        tmp_path / "tracks.mp4",
        clip(12, 48, 64),
        pts=np.cumsum([0, 3, 40, 7, 1, 1, 90, 5, 5, 5, 5, 8]).tolist(),
        time_base=Fraction(1, 100),
        sar=Fraction(4, 3),
        rotation=90,
        audio=["aac", "aac"],
        subtitles=["mov_text"],
        chapters=[(0, 0.5, "one")],
    )


def test_nothing_else_changes(tracks, tmp_path, painter):
    output = tmp_path / "out.mp4"
    paths = [str(tracks), "--box", "10,10,20,20", "--output", str(output)]
    assert cli.main(["inpaint", *paths]) == 0
    ours, theirs = video_facts(output), video_facts(tracks)
    ours.pop("duration"), theirs.pop("duration")
    assert ours == theirs and other_facts(output) == other_facts(tracks)


def test_lossless_says_so_and_is(tracks, tmp_path, painter):
    output = tmp_path / "out.mkv"
    paths = [str(tracks), "--box", "10,10,20,20", "--output", str(output)]
    assert cli.main(["inpaint", *paths, "--lossless", "--accept-loss"]) == 0
    frames, truth = (
        np.stack([frame.rgb() for frame in open_source(path).frames()]) for path in (output, tracks)
    )
    assert (frames.shape == truth.shape) and not frames[:, 14:26, 14:26].any()
    outside = np.ones(frames.shape[1:3], bool)
    outside[6:34, 6:34] = False  # interpolated chroma reaches a little beyond the hole
    np.testing.assert_array_equal(frames[:, outside], truth[:, outside])


def test_what_cannot_be_kept_is_refused_before_any_work(tracks, tmp_path, painter, capsys):
    output = tmp_path / "out.webm"
    assert cli.main(["inpaint", str(tracks), "--box", "1,1,8,8", "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert "out.webm" in message and "aac" in message and ".mp4" in message
    assert not painter.loaded and not output.exists()


def test_a_forgotten_mask(inputs, tmp_path, capsys):
    paths = [str(inputs / "shot.mp4"), "--output", str(tmp_path / "o.mp4")]
    assert cli.main(["inpaint", *paths]) == 2
    assert "--mask, --box or --alpha" in capsys.readouterr().err


def test_what_nobody_expected_is_one_line(inputs, tmp_path, painter, monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr(Painter, "stream", fail)
    assert command(inputs, tmp_path / "done.mp4", "--json") == 1
    assert "a wheel came off" in json.loads(capsys.readouterr().out)["message"]


def test_frames_are_never_replaced_by_their_completion(inputs, tmp_path, painter):
    write_frame_folder(inputs / "frames", SHOT)
    before = {file: file.read_bytes() for file in (inputs / "frames").iterdir()}
    for video in ("frames", "frames/%05d.png"):
        for output in (inputs / "frames", inputs / "frames" / "sub", inputs):
            code = command(inputs, output, "--overwrite", video=video)
            assert code == 3 or (output.name == "sub" and video != "frames")
    assert command(inputs, inputs / "frames", "--overwrite", mask="frames/00000.png") == 3
    assert {file: file.read_bytes() for file in before} == before


def test_what_png_frames_cannot_hold_is_told(tracks, tmp_path, painter, caplog):
    paths = [str(tracks), "--box", "10,10,20,20", "--output", str(tmp_path / "out")]
    assert cli.main(["inpaint", *paths]) == 0
    assert all(word in caplog.text for word in ("audio", "subtitle", "uneven", "4/3"))
    assert cli.main(["inpaint", *paths, "--overwrite", "--codec", "hevc"]) == 2


def test_lossless_asks_for_its_container(inputs, tmp_path, painter):
    assert command(inputs, tmp_path / "done.mp4", "--lossless") == 2


def test_json_for_scripts(inputs, tmp_path, painter, capsys):
    cv2.imwrite(str(inputs / "flat.png"), np.zeros((32, 48), np.uint8))
    assert command(inputs, tmp_path / "out.mkv", "--json", mask="flat.png") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["status"], outcome["frames"], outcome["completed"]) == ("done", 4, 0)
    assert outcome["output"] == str(tmp_path / "out.mkv")
    assert len(outcome["warnings"]) == 1 and "no hole" in outcome["warnings"][0]
    assert command(inputs, tmp_path / "out.mkv", "--json") == 3
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["status"], outcome["reason"], outcome["exit_code"]) == ("failed", "exists", 3)
    assert outcome["warnings"] == []


def test_json_of_a_failure_has_its_warnings(inputs, tmp_path, painter, monkeypatch, capsys):
    monkeypatch.setattr("cssta.output.verify", lambda *_: 1 / 0)
    cv2.imwrite(str(inputs / "flat.png"), np.zeros((32, 48), np.uint8))
    assert command(inputs, tmp_path / "out.mkv", "--json", mask="flat.png") == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["status"] == "failed" and "no hole" in outcome["warnings"][0]


def test_interrupting_while_it_loads(monkeypatch, capsys):
    def stop(_module):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", stop)
    assert cli.main(["inpaint", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["reason"] == "interrupted"


def test_frames_keep_their_names(inputs, tmp_path, painter):
    shot = inputs / "shot"
    shot.mkdir()
    for number, frame in enumerate(SHOT, 1001):
        cv2.imwrite(str(shot / f"sc7.{number}.jpg"), frame[..., ::-1])
    names = [f"sc7.{number}.png" for number in range(1001, 1005)]

    def made(output: str, *more, **inputs_) -> list[str]:
        assert command(inputs, f"{tmp_path}/{output}", *more, **{"video": "shot", **inputs_}) == 0
        folder = tmp_path / output.rpartition("/")[0] if "%" in output else tmp_path / output
        return sorted(file.name for file in folder.iterdir())

    assert made("plain") == names
    assert made("plain", "--overwrite", video="shot/sc7.%04d.jpg") == names
    assert made("take.2/") == names  # the slash tells that it is a folder
    assert made("take.2", "--overwrite") == names
    assert made("take.mp4/") == names
    assert made("deep/a%05d.png") == [f"a0{number}.png" for number in range(1001, 1005)]
    assert made("film/%d.png", video="shot.mp4") == [f"{number}.png" for number in range(4)]
    (tmp_path / "plain" / "diary.png").touch()
    assert command(inputs, tmp_path / "plain", "--overwrite", video="shot") == 3


def test_a_preview_is_one_picture(inputs, tmp_path, painter, capsys):
    picture = tmp_path / "look.png"
    assert command(inputs, picture, "--preview", "0.05", "--json") == 0
    assert json.loads(capsys.readouterr().out)["frame"] == 1
    pixels = cv2.imread(str(picture))
    assert pixels.shape == (32, 3 * 48 + 16, 3) and not pixels[8:16, 48 * 2 + 16 + 8 :][:, :8].any()
    assert command(inputs, picture, "--preview", "0.05") == 3
    assert command(inputs, tmp_path / "late.png", "--preview", "9") == 2
    assert command(inputs, tmp_path / "look.mp4", "--preview", "0") == 2


def test_evaluation_is_a_command_too(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_module_runs_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cssta", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    listed = capsys.readouterr().out
    assert all(name in listed and what in listed for name, (_, what) in cli.COMMANDS.items())
    monkeypatch.setattr(sys, "argv", ["cssta", "inpaint", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0 and "--mask" in capsys.readouterr().out
