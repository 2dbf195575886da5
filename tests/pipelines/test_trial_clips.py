"""All trials meet the same clips: damage is replaced alike, what may pass is not guessed at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cssta.video import probe
from pipelines import clip_loading, retries, storage
from pipelines.clip_plan import ClipRow
from pipelines.data_config import DataConfig
from pipelines.manifest import VideoRow
from pipelines.storage import StorageError
from pipelines.trial_clips import TrialError, decoded_clips

CFG = DataConfig(videos="/v", height=48, width=48, references=2)


class Counted:
    def __init__(self) -> None:
        self.seen = []

    def report(self, bad) -> None:
        self.seen.append((storage.name(bad.uri), bad.reason))


@pytest.fixture
def videos(damaged_folder: Path) -> list[VideoRow]:
    infos = [probe(damaged_folder / f"{name}.mp4") for name in "abc"]
    return [VideoRow(str(i.path), i.frames, i.height, i.width, i.fps) for i in infos]


def rows_of(videos: list[VideoRow]) -> list[ClipRow]:
    return [
        ClipRow(number, video.uri, (0, 2, 4), False, 0.0, 0.0, 7 + number, None)
        for number, video in enumerate(videos)
    ]


def test_a_damaged_clip_is_replaced_in_its_place_and_always_by_the_same(videos):
    rows = rows_of(videos)
    whole = list(decoded_clips(rows, videos, CFG))
    Path(videos[1].uri).write_text("no video")
    failures = Counted()
    first, second = (list(decoded_clips(rows, videos, CFG, failures)) for _ in range(2))
    assert set(failures.seen) == {("b.mp4", "unreadable")}
    for number, (clip, again, before) in enumerate(zip(first, second, whole, strict=True)):
        np.testing.assert_array_equal(clip["frames"], again["frames"])
        np.testing.assert_array_equal(clip["masks"], before["masks"])
        assert (clip["frames"] == before["frames"]).all() == (number != 1)


def test_a_damaged_mask_costs_no_video(videos, tmp_path: Path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "0.png").write_text("no picture")
    rows = [replace(rows_of(videos)[0], objects=str(tmp_path / "masks"))]
    (free,) = decoded_clips(rows_of(videos)[:1], videos, CFG)
    failures = Counted()
    (clip,) = decoded_clips(rows, videos, CFG, failures)
    np.testing.assert_array_equal(clip["frames"], free["frames"])
    np.testing.assert_array_equal(clip["masks"], free["masks"])
    assert failures.seen == [("a.mp4", "storage")]


def test_an_answer_that_comes_late_is_waited_for_and_none_is_an_error(videos, monkeypatch):
    opened = []
    reader = clip_loading.frame_reader

    def flaky(uri, cfg):
        opened.append(uri)
        if len(opened) <= refusals:
            raise StorageError(f"{uri}: no answer", transient=True)
        return reader(uri, cfg)

    monkeypatch.setattr(clip_loading, "frame_reader", flaky)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    refusals = retries.ATTEMPTS - 1
    assert len(list(decoded_clips(rows_of(videos), videos, CFG))) == 3
    opened.clear()
    refusals = retries.ATTEMPTS
    failures = Counted()
    with pytest.raises(TrialError, match=r"a\.mp4: no answer; every trial needs the same clips"):
        list(decoded_clips(rows_of(videos), videos, CFG, failures))
    assert failures.seen == []


def test_nothing_left_to_take_is_an_error(videos, damaged_folder: Path):
    for name in "abc":
        (damaged_folder / f"{name}.mp4").write_bytes(b"")
    with pytest.raises(TrialError, match=r"clip 0: neither .*a\.mp4 nor any video in its place"):
        list(decoded_clips(rows_of(videos), videos, CFG))
