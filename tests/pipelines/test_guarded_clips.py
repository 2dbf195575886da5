"""A file that crashes or hangs its decoder costs its clips, and names itself; nothing else ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cssta.video import probe
from pipelines import clip_loading, guarded_clips, retries, storage
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipRow, substitutes
from pipelines.data_config import DataConfig
from pipelines.failures import DecoderCrashError, Failures, TooManyFailuresError
from pipelines.guarded_clips import held_out_clips, load_held_out
from pipelines.manifest import Rejected, VideoRow
from pipelines.storage import StorageError
from pipelines.trial_clips import trial_clips

CFG = DataConfig(videos="/v", height=48, width=48, references=2)


@pytest.fixture
def videos(damaged_folder: Path) -> list[VideoRow]:
    infos = [probe(damaged_folder / f"{name}.mp4") for name in "abcde"]
    return [VideoRow(str(i.path), i.frames, i.height, i.width, i.fps) for i in infos]


def rows_of(videos: list[VideoRow]) -> list[ClipRow]:
    return [
        ClipRow(number, video.uri, (0, 2, 4), False, 0.0, 0.0, 7 + number, None)
        for number, video in enumerate(videos)
    ]


def faulty(honest):
    """`_decode`, pickled by value into its tasks, where b.mp4 crashes and d.mp4 hangs."""

    def decode(load, rows, failures, name, seconds):
        import os
        import time
        from contextlib import contextmanager

        from pipelines import storage
        from pipelines.watchdog import Watchdog

        def load_faulty(rows, attempt):
            @contextmanager
            def attempt_faulty(uri):
                with attempt(uri) as words:
                    if storage.stem(uri) == "b":
                        os.abort()
                    while storage.stem(uri) == "d":
                        time.sleep(1)
                    with Watchdog.paused():  # (only what hangs is timed)
                        yield words

            return load(rows, attempt_faulty)

        return honest(load_faulty, rows, failures, name, seconds)

    return decode


def same(clips, rows) -> bool:
    return all(
        all(np.array_equal(clip[key], value) for key, value in load_clip(row, CFG).items())
        for clip, row in zip(clips, rows, strict=True)
    )


@pytest.mark.cluster
def test_a_crash_and_a_hang_cost_only_their_own_clips(ray_cluster, videos, monkeypatch):
    monkeypatch.setattr(guarded_clips, "_decode", faulty(guarded_clips._decode))
    monkeypatch.setattr(guarded_clips, "SECONDS_PER_CLIP", 0.5)
    rows, failures = rows_of(videos), Failures()
    clips = held_out_clips(rows, CFG, failures)
    assert same(clips, [row for row in rows if storage.stem(row.uri) in "ace"])
    told = [(storage.stem(bad.uri), bad.reason) for bad in failures.list()]
    assert told == [("b", "crashed"), ("d", "crashed")]
    # What is known by then ends no further process; a trial takes the same other clip every time.
    monkeypatch.setattr(guarded_clips, "RETRIES", 0)
    expected = [
        next(r for r in (row, *substitutes(row, videos, CFG)) if storage.stem(r.uri) in "ace")
        for row in rows
    ]
    for _ in range(2):
        assert same(trial_clips(rows, videos, CFG, failures), expected)
    # Without a count of attempts the reading ends, by name, and not the process that reads.
    monkeypatch.setattr(guarded_clips, "BYTES_PER_TASK", 1)
    with pytest.raises(DecoderCrashError, match=r"process that decodes \S+/b\.mp4 keeps dying: "):
        held_out_clips(rows[:2], CFG, None)


@pytest.mark.cluster
def test_clips_come_in_order_from_however_many_tasks(ray_cluster, videos, monkeypatch):
    monkeypatch.setattr(guarded_clips, "BYTES_PER_TASK", 2 * 3 * 48 * 48 * 4)  # (two clips)
    rows = rows_of(videos)
    clips = held_out_clips(rows, CFG, None)
    assert same(clips, rows)
    assert not any(value.flags.writeable for clip in clips for value in clip.values())
    assert held_out_clips([], CFG, None) == []


@pytest.mark.cluster
def test_too_many_bad_files_are_told_as_such(ray_cluster, videos):
    for video in videos[:2]:
        Path(video.uri).write_text("no video")
    failures = Failures(limit=1)
    with pytest.raises(TooManyFailuresError, match=r"2 files failed.*allows 1: .*a\.mp4.*b\.mp4"):
        held_out_clips(rows_of(videos), CFG, failures)


class Counted:
    def __init__(self) -> None:
        self.seen: list[Rejected] = []

    def report(self, bad: Rejected) -> None:
        self.seen.append(bad)


def test_a_damaged_file_is_left_out_and_reported(videos):
    Path(videos[1].uri).write_text("no video")
    Path(videos[3].uri).unlink()
    failures = Counted()
    clips = load_held_out(rows_of(videos), data=CFG, failures=failures)
    assert [clip is None for clip in clips] == [False, True, False, True, False]
    told = [(storage.stem(bad.uri), bad.reason) for bad in failures.seen]
    assert told == [("b", "unreadable"), ("d", "storage")]


def test_storage_that_is_away_does_not_change_what_is_validated_on(videos, monkeypatch):
    reader, answers = clip_loading.frame_reader, []

    def away(uri, cfg):
        answers.append(uri)
        if storage.stem(uri) == "b":
            raise StorageError(f"{uri}: no answer", transient=True)
        return reader(uri, cfg)

    monkeypatch.setattr(clip_loading, "frame_reader", away)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    failures = Counted()
    with pytest.raises(StorageError, match=r"b\.mp4: no answer"):
        load_held_out(rows_of(videos), data=CFG, failures=failures)
    assert failures.seen == [] and len(answers) == 1 + retries.ATTEMPTS
