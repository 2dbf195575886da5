"""`cssta evaluate` from the command line: numbers that repeat, files, and messages."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cssta.evaluation.command import add_parser
from cssta.evaluation.methods import BASELINES
from cssta.evaluation.protocols import PROTOCOLS
from cssta.video import VideoError, read_frames, write_frame_folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The protocols at a size that is quick."""
    for name, found in list(PROTOCOLS.items()):
        monkeypatch.setitem(PROTOCOLS, name, replace(found, height=48, width=64, window=7))


def evaluate(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["evaluate", *map(str, arguments)])
    args.run(args)


def test_model_and_baselines(davis, tiny_model, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = (davis, "--model", tiny_model, "--output", output, "--figures", 1, "--frames", 4)
    evaluate(*arguments)
    printed = capsys.readouterr().out
    content = json.loads((output / "evaluation.json").read_text())
    methods = ["telea", "nearest", "aligned", "flow", "network", "cssta"]
    assert [row["method"] for row in content["pooled"]] == methods
    assert len(content["scores"]) == 18 and not content["failed"]
    first = content["scores"][0]
    assert (first["sequence"], first["frames"], len(first["masks"])) == ("a", 4, 12)
    assert all(row["seconds"] >= 0 for row in content["scores"])
    assert "what it was trained on is not known" in printed and "Seconds on" in printed
    assert "| cssta |" in printed and first["masks"] in printed
    names = {path.name for path in (output / "figures").iterdir()}
    assert names == {"a.png", "a.mp4", "a-attention.png"}
    page = (output / "report.html").read_text()
    assert page.count("<img ") == 2 and page.count("<video ") == 1

    evaluate(*arguments, "--figures", 0)
    again = json.loads((output / "evaluation.json").read_text())
    for one, other in zip(content["scores"], again["scores"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_a_folder_of_results_scores_like_the_method_that_made_it(davis, tmp_path, capsys):
    truth = {name: read_frames(davis / "JPEGImages/480p" / name) for name in "ab"}
    for name, frames in truth.items():
        wrong = frames.astype(int) + 10  # everywhere: outside the hole it does not count
        write_frame_folder(tmp_path / "theirs" / name, np.clip(wrong, 0, 255).astype(np.uint8))
    evaluate(
        davis, "--results", f"theirs={tmp_path / 'theirs'}", "--output", tmp_path / "out",
        "--figures", 0, "--json",
    )  # fmt: skip
    content = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in content["scores"]] == ["theirs", "theirs"]
    assert 28 < content["scores"][0]["hole_psnr"] < 30  # 10 levels: 28.13 dB, clipped ones less
    assert content["scores"][0]["psnr"] > content["scores"][0]["hole_psnr"] + 5
    assert content["scores"][0]["seconds"] is None
    assert "no result for c" in content["failed"][0]


def test_tables_of_the_paper(davis, tiny_model, tmp_path, capsys):
    arguments = ("--model", f"ours={tiny_model}", "--sequences", "a", "--frames", 3, "--figures", 0)
    for table, row in (
        (1, "| CSSTA (the paper) | 27.939 / 0.906 | 28.651 / 0.815 | 12.3 | 0.172 |"),
        (3, "|  |  |  |  | without the CSSTA layer | 18.227 / 0.721 |"),
    ):
        output = tmp_path / str(table)
        evaluate(davis, "--table", table, *arguments, "--output", output)
        text = (output / "evaluation.md").read_text()
        assert text.startswith(f"# Table {table}") and row in text
        assert (output / "beside-the-paper.csv").read_text().startswith("method,psnr,ssim,")
    assert "| ours: references-0 |" in text and "| ours: network |" in text
    evaluate(
        davis, "--table", 4, "--model", f"a={tiny_model}", "--model", f"b={tiny_model}",
        "--frames", 2, "--figures", 0, "--output", tmp_path / "4",
    )  # fmt: skip
    content = json.loads((tmp_path / "4" / "evaluation.json").read_text())
    assert [row["method"] for row in content["pooled"]] == ["a: network", "b: network"]


def test_objects_and_given_masks(davis, tmp_path, capsys):
    common = ("--methods", "telea", "--figures", 0, "--output", tmp_path / "out", "--json")
    evaluate(davis, "--holes", "objects", *common)
    objects = json.loads(capsys.readouterr().out)["scores"]
    evaluate(davis, "--masks", davis / "Annotations/480p", *common)
    given = json.loads(capsys.readouterr().out)["scores"]
    assert all(a["masks"] != b["masks"] for a, b in zip(objects, given, strict=True))
    evaluate(davis, "--seed", 1, *common)
    other = json.loads(capsys.readouterr().out)["scores"]
    evaluate(davis, *common)
    assert json.loads(capsys.readouterr().out)["scores"][0]["masks"] != other[0]["masks"]


def test_what_is_wrong_is_one_line(davis, tmp_path):
    for arguments, words in (
        ((davis, "--methods", "gated"), "no method 'gated'"),
        ((davis, "--sequences", "z"), "no sequence 'z'"),
        ((davis, "--results", tmp_path), "nothing could be scored"),
        ((davis, "--methods", ","), "nothing to score"),
        ((davis, "--methods", "telea,telea"), "'telea' is called twice"),
        ((davis, "--results", "a/out", "--results", "b/Out"), "'Out' is called twice; use NAME="),
        ((davis, "--results", "Telea=b"), "'Telea' is a method's name"),
        ((davis, "--model", "a/m", "--model", "b/m"), "'m' is called twice"),
        ((davis, "--methods", "telea", "--look", "a:1,2"), "SEQUENCE:FRAME,Y,X"),
        ((davis, "--methods", "telea", "--look", "z:1,2,3"), "no sequence 'z'"),
        ((davis, "--methods", "telea", "--look", "a:1,2,3"), "asks a model"),
    ):
        with pytest.raises(SystemExit, match=words):
            evaluate(*arguments, "--output", tmp_path / "out")
    with pytest.raises(VideoError, match="holds no sequences"):
        evaluate(tmp_path / "absent")


def test_a_method_that_fails_costs_nothing_else(davis, tmp_path, monkeypatch):
    """One that raises on the second sequence, and a user who interrupts during the third."""
    output = tmp_path / "out"
    calls = []

    def failing(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        if len(calls) == 3:
            raise KeyboardInterrupt
        return frames

    monkeypatch.setitem(BASELINES, "nearest", replace(BASELINES["nearest"], complete=failing))
    with pytest.raises(KeyboardInterrupt):
        evaluate(davis, "--methods", "nearest,telea", "--output", output, "--figures", 0)
    content = json.loads((output / "evaluation.json").read_text())
    scored = [(score["sequence"], score["method"]) for score in content["scores"]]
    assert scored == [("a", "nearest"), ("a", "telea"), ("b", "telea")]
    assert content["failed"] == ["b: nearest: RuntimeError: out of memory"]
    text = (output / "report.html").read_text()
    assert "Unfinished: these are the first 2 of 3 sequences." in text
    assert "not to be held against the others" in text
    calls.append(0)
    evaluate(davis, "--methods", "nearest,telea", "--output", output, "--figures", 0)
    whole = (output / "evaluation.md").read_text()
    assert "Unfinished" not in whole and "| c | nearest |" in whole


def test_captions(davis, tmp_path):
    truth = davis / "JPEGImages/480p"
    evaluate(
        davis, "--results", truth, "--results", f"STTN={truth}", "--sequences", "a",
        "--frames", 1, "--protocol", "e2fgvi", "--figures", 0, "--output", tmp_path / "out",
    )  # fmt: skip
    text = (tmp_path / "out/evaluation.md").read_text()
    note = "completed clips from the folder 480p, as they are"
    assert f"- Methods: 480p: {note}; STTN: {note}." in text
    assert "(davis), 1 sequence, the first 1 frame of each." in text
    assert "still free-form holes of 16%" in text
    assert "| STTN | 32.34 / 0.9655 | 30.67 / 0.956 |" in text, "beside the row it is called like"


def test_attention_of_a_chosen_pixel(davis, tiny_model, tmp_path):
    arguments = (
        davis, "--model", tiny_model, "--methods", "network", "--holes", "objects",
        "--figures", 1, "--output", tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(SystemExit, match=r"2,0,0 is no hole pixel of c \(3 frames of 64x48\)"):
        evaluate(*arguments, "--look", "c:2,0,0")
    evaluate(*arguments, "--look", "c:2,15,15")
    page = (tmp_path / "out/report.html").read_text()
    assert "c: where hole pixel y=15 x=15 of frame 2 looks, by the networks alone" in page
    assert "a: where one hole pixel looks, by the networks alone" in page and "b: every" not in page


def test_a_model_folder_with_an_equals_sign(davis, tiny_model, tmp_path):
    folder = tmp_path / "lr=1" / "m"
    shutil.copytree(tiny_model, folder)
    evaluate(
        davis, "--model", folder, "--methods", "stage1", "--frames", 1, "--figures", 0,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "| stage1 |" in (tmp_path / "out/evaluation.md").read_text()


def test_vfid_by_a_network_of_the_users(davis, tmp_path, capsys):
    import torch

    class Means(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            return video.mean((3, 4))

    torch.jit.trace(Means(), torch.zeros(1, 3, 2, 48, 64)).save(str(tmp_path / "i3d.pt"))
    evaluate(
        davis, "--methods", "telea,nearest", "--figures", 0, "--output", tmp_path / "out",
        "--vfid", tmp_path / "i3d.pt",
    )  # fmt: skip
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert set(content["vfid"]) == {"telea", "nearest"} and min(content["vfid"].values()) >= 0
    text = (tmp_path / "out/evaluation.md").read_text()
    assert "- VFID: i3d.pt." in text and "- LPIPS is absent" in text and "| VFID |" in text
