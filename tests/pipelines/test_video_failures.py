"""Remedies name what a batch takes, not the options of another command."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cssta.video import VideoError, write_video
from pipelines.batch_options import VideoOptions
from pipelines.batch_plan import plan_batch
from pipelines.config import JobConfig
from pipelines.video_failures import as_failure, words_of_a_batch
from tests.pipelines.one_process import MODEL, complete_all, config, picture_clip

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def task(tmp_path: Path):
    write_video(tmp_path / "in/a.mp4", picture_clip(4), 24)
    (task,) = plan_batch(config(tmp_path), MODEL).tasks
    return task


def test_a_mask_that_is_too_short_says_how_a_batch_holds_its_last(tmp_path: Path, task):
    write_video(tmp_path / "masks/a.mp4", picture_clip(3), 24)
    masks = {"masks": str(tmp_path / "masks")}
    (outcome,) = complete_all(config(tmp_path, inference=masks)).values()
    assert (outcome.reason, "--hold-last" in outcome.message) == ("mask-length", False)
    assert " hold_last to go on with" in outcome.message
    # What it says can be done, and mends it.
    (key,) = re.findall(r"--set (inference\.options\.\w+)=", outcome.message)
    held = {**masks, "options": {key.rpartition(".")[2]: True}}
    (outcome,) = complete_all(config(tmp_path, inference=held)).values()
    assert outcome.status == "done", outcome.message


def test_every_option_that_a_remedy_names_is_one_of_a_batch(task):
    """All that the library's messages name, as they stand in its source."""
    sources = [path.read_text() for path in (REPOSITORY / "cssta/video").rglob("*.py")]
    options = {option for text in sources for option in re.findall(r"(?<=[ \"'])--[a-z-]+", text)}
    assert {"--hold-last", "--codec", "--accept-loss", "--lossless", "--pix-fmt"} <= options
    for option in options - {"--resume"}:  # (a batch always goes on; staged work is its own)
        error = VideoError(task.video, "format", "is odd", f"Choose another, or {option}")
        message = as_failure(task, error)[1]
        key = option[2:].replace("-", "_")
        assert option not in message and key in VideoOptions.model_fields
        assert f"inference.options.{key}=" in message and f"column {key}" in message


def test_names_stay_what_they_are(task):
    error = VideoError("/x/a --codec b.mp4", "format", "is odd", "Choose another --codec")
    message = as_failure(replace(task, video="s3://b/a --codec b.mp4"), error)[1]
    assert message.startswith("s3://b/a --codec b.mp4: is odd. Choose another codec. (for all")


def test_other_words_stay():
    for words in (
        "a--codec is odd",
        "/x/--codec-y/a.mp4 is empty",
        "nothing -- at all",
        "--resume",
    ):
        assert words_of_a_batch(words) == words
    JobConfig.load(None, ["inference.options.codec=av1"])  # (what is named is taken)
