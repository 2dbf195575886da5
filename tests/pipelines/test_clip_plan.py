"""The plan is a pure function of (seed, epoch), fair to every video, and fits any length."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import storage
from pipelines.clip_plan import (
    CLIPS_PER_OPEN,
    VISITS_AT_ONCE,
    ClipPlan,
    Deal,
    plan_clips,
    substitutes,
)
from pipelines.data_config import DataConfig, MasksConfig
from pipelines.manifest import Manifest, VideoRow


def manifest(*lengths: int) -> Manifest:
    return Manifest(
        tuple(VideoRow(f"/v/{i}.mp4", n, 48, 64, Fraction(24)) for i, n in enumerate(lengths))
    )


def config(**values) -> DataConfig:
    return DataConfig(videos="/v", **values)


def test_same_seed_and_epoch_same_plan_and_otherwise_another():
    videos, cfg = manifest(30, 40, 50), config(clips_per_epoch=12)
    plans = [plan_clips(videos, cfg, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert plan_clips(videos, cfg, 0, 1) == plans[1]
    content = [[(row.uri, row.indices, row.crop_y, row.mask_seed) for row in p] for p in plans]
    assert all(a != b for i, a in enumerate(content) for b in content[:i])


def test_every_video_is_used_equally_often():
    rows = plan_clips(manifest(9, 90, 900), config(clips_per_epoch=50), 0, 3)
    assert [row.number for row in rows] == list(range(150, 200))
    assert sorted(Counter(row.uri for row in rows).values()) == [16, 17, 17]


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("hand", [1, 2, 4])
def test_a_batch_shows_many_videos_yet_a_task_cuts_all_clips_of_a_visit(workers: int, hand: int):
    cfg = config(clips_per_epoch=256)
    rows = plan_clips(manifest(*[30] * 64), cfg, 0, 0)
    for start in range(0, 256, VISITS_AT_ONCE):
        assert len({row.uri for row in rows[start : start + VISITS_AT_ONCE]}) == VISITS_AT_ONCE
    plan = ClipPlan(manifest(*[30] * 64), cfg, 0)
    for deal in (Deal(workers, 4, hand), Deal(workers, 8, hand)):
        for start, stop in plan.spans(0, 256, hand):
            uses = Counter(rows[deal.number(place)].uri for place in range(start, stop))
            assert set(uses.values()) == {CLIPS_PER_OPEN}


@given(
    workers=st.integers(1, 5),
    turns=st.integers(1, 4),
    hand=st.integers(1, 4),
    steps=st.integers(1, 5),
)
def test_workers_are_dealt_their_slices_of_the_one_sequence(workers, turns, hand, steps):
    size = turns * hand
    deal = Deal(workers, size, hand)
    order = [deal.number(place) for place in range(steps * workers * size)]
    hands = [order[start : start + hand] for start in range(0, len(order), hand)]
    for rank in range(workers):  # every `workers`-th block, as Ray gives them away
        dealt = [number for part in hands[rank::workers] for number in part]
        expected = [number for number in range(len(order)) if number // size % workers == rank]
        assert dealt == expected
    for step in range(steps):
        first = step * workers * size
        assert sorted(order[first : first + workers * size]) == list(
            range(first, first + workers * size)
        )


@given(workers=st.integers(1, 5), batch_size=st.integers(1, 4), done=st.integers(0, 8))
@settings(max_examples=20)
def test_a_stage_resumes_within_the_same_sequence(workers, batch_size, done):
    plan = ClipPlan(manifest(30, 40, 50), config(clips_per_epoch=37), 7)
    size = workers * batch_size
    every = plan.rows(0, 9 * size)
    assert [row.number for row in every] == list(range(9 * size))
    assert plan.rows(done * size, 9 * size) == every[done * size :]


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 200), st.integers(1, 4))
def test_spans_are_whole_and_end_with_visits(start, length, per_epoch, whole):
    plan = ClipPlan(manifest(30), config(clips_per_epoch=per_epoch), 0)
    spans = plan.spans(start, start + length, whole)
    assert spans[0][0] == start and spans[-1][1] == start + length
    assert all(first[1] == second[0] for first, second in pairwise(spans))
    size = CLIPS_PER_OPEN * VISITS_AT_ONCE
    for first, last in spans[:-1]:
        assert (last - start) % whole == 0
        assert min(last % per_epoch, last % per_epoch % size) < whole
        assert 0 < last - first < size + whole


def test_a_clip_has_the_same_substitutes_wherever_it_fails():
    cfg = config(clips_per_epoch=8, references=3)
    videos = manifest(30, 40, 5, 1, 50)
    rows = plan_clips(videos, cfg, 0, 0)
    for row in rows:
        others = list(substitutes(row, videos.videos, cfg))
        assert others == list(substitutes(row, videos.videos, cfg))
        assert sorted([row.uri, *(other.uri for other in others)]) == [
            video.uri for video in videos.videos
        ]
        for other in others:
            frames = next(video.frames for video in videos.videos if video.uri == other.uri)
            assert (
                len(other.indices) == 4 and 0 <= min(other.indices) <= max(other.indices) < frames
            )
            assert (other.number, other.mask_seed, other.flip) == (
                row.number,
                row.mask_seed,
                row.flip,
            )
    assert len({next(substitutes(row, videos.videos, cfg)).uri for row in rows}) > 1


@given(
    frames=st.integers(1, 40),
    references=st.integers(1, 8),
    max_stride=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_indices_are_in_the_video_and_evenly_spaced_or_reflected(
    frames: int, references: int, max_stride: int, seed: int
):
    cfg = config(references=references, max_stride=max_stride, clips_per_epoch=3)
    for row in plan_clips(manifest(frames), cfg, seed, 0):
        assert len(row.indices) == references + 1
        assert min(row.indices) >= 0 and max(row.indices) < frames
        steps = np.diff(row.indices)
        if frames > references:  # long enough: forward at one stride, no frame twice
            assert (steps == steps[0]).all() and 1 <= steps[0] <= max_stride
        elif frames > 1:  # back and forth: no jump, and every frame is shown
            assert (np.abs(steps) == 1).all()
            assert set(row.indices) == set(range(frames))
        else:
            assert set(row.indices) == {0}


def test_draws_cover_strides_starts_and_flips():
    rows = plan_clips(manifest(40), config(references=3, clips_per_epoch=200), 0, 0)
    assert {row.indices[1] - row.indices[0] for row in rows} == {1, 2, 3, 4, 5}
    assert min(row.indices[0] for row in rows) == 0
    assert max(row.indices[-1] for row in rows) == 39
    assert {row.flip for row in rows} == {True, False}
    unflipped = plan_clips(manifest(40), config(clips_per_epoch=50, flip=False), 0, 0)
    assert {row.flip for row in unflipped} == {False}
    assert len({row.mask_seed for row in rows}) == 200


def test_objects_come_from_other_videos():
    masks = MasksConfig(kind="mixed", objects="/objects")
    cfg = config(clips_per_epoch=60, masks=masks)
    objects = ["/objects/0", "/objects/1", "/objects/2"]
    rows = plan_clips(manifest(30, 30), cfg, 0, 0, objects=objects)
    kinds = Counter(row.objects is None for row in rows)
    assert min(kinds.values()) > 15
    for row in rows:
        assert row.objects is None or row.objects.split("/")[-1] != row.uri[3:-4]
    # with nothing else to draw from, its own is better than none
    cfg = config(clips_per_epoch=2, masks=MasksConfig(kind="objects", objects="/objects"))
    rows = plan_clips(manifest(30), cfg, 0, 0, objects=["/objects/0"])
    assert [row.objects for row in rows] == ["/objects/0"] * 2


def test_no_videos_or_no_objects_is_an_error():
    with pytest.raises(ValueError, match="no videos"):
        plan_clips(Manifest(()), config(), 0, 0)
    cfg = config(masks=MasksConfig(kind="objects", objects="/objects"))
    with pytest.raises(ValueError, match="mask sequences"):
        plan_clips(manifest(9), cfg, 0, 0)


def test_planning_takes_as_long_as_there_are_clips_and_objects(monkeypatch):
    """Not as one times the other: YouTube-VOS has 3471 sequences, and all processes plan."""
    taken, plain = [], storage.stem
    monkeypatch.setattr(storage, "stem", lambda uri: taken.append(uri) or plain(uri))
    cfg = config(clips_per_epoch=60, masks=MasksConfig(kind="objects", objects="/objects"))
    objects = [f"/objects/{number}" for number in range(40)]
    rows = plan_clips(manifest(*[30] * 50), cfg, 0, 0, objects=objects)
    assert len(taken) <= len(rows) + len(objects)
    assert len({row.objects for row in rows}) > 20
    # as often as any other, and never its own
    rows = plan_clips(manifest(30), cfg, 0, 0, objects=["/objects/0", "/objects/1", "/objects/2"])
    assert set(Counter(row.objects for row in rows)) == {"/objects/1", "/objects/2"}
