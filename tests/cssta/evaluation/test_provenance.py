"""Captions say what a model's card says, and that a missing card says nothing."""

from __future__ import annotations

from pathlib import Path

from cssta.checkpoint import DEFAULT_MODEL
from cssta.evaluation.provenance import (
    describe_footage,
    describe_machine,
    describe_methods,
    describe_model,
    describe_results,
)


def test_the_default_weights():
    text = describe_model(None)
    assert text == describe_model(DEFAULT_MODEL) and text.startswith("Model: the default weights;")
    for part in ("default weights", "research clips", "never trained on: DAVIS", "inpainter"):
        assert part in text
    assert "**" not in text


def test_a_card_of_ones_own(tmp_path: Path):
    assert "what it was trained on is not known" in describe_model(tmp_path)
    (tmp_path / "README.md").write_text("# M\n\n| | |\n| --- | --- |\n| steps | 7 |\n")
    assert describe_model(tmp_path) == f"Model: {tmp_path.name}; steps: 7."
    (tmp_path / "README.md").write_text("# M\n\nA **short CPU run**.\n")
    text = describe_model(tmp_path)
    assert "see " in text and text.endswith("These weights are of a short run.")


def test_footage_and_methods():
    assert describe_footage("D", "davis", 1, None) == (
        "Footage: D (davis), 1 sequence, all frames of each."
    )
    assert describe_footage("D", "folder", 2, 3).endswith(
        "2 sequences, the first 3 frames of each."
    )
    assert describe_methods({}) == []
    assert "folder out," in describe_results("s3://bucket/theirs/out/")
    assert describe_methods({"a": "x", "b": "y"}) == ["Methods: a: x; b: y."]


def test_the_machine():
    text = describe_machine("cpu")
    assert text.startswith("Seconds on ") and "torch" in text and "cores" in text
