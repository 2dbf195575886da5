from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssta.segments import plan_segments
from cssta.survey import Scene, Survey

BOX = (0, 4, 0, 4)


def survey_of(scenes: list[tuple[int, bool]]) -> Survey:
    edges = np.cumsum([0, *(length for length, _ in scenes)])
    return Survey(
        int(edges[-1]),
        np.zeros(edges[-1], np.int64),
        tuple(
            Scene(int(start), int(stop), BOX if hole else None)
            for start, stop, (_, hole) in zip(edges, edges[1:], scenes, strict=False)
        ),
    )


@given(
    st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 300),
    st.integers(0, 40),
)
def test_segments_cover_the_video_within_scenes(scenes, longest, warm_up):
    survey = survey_of(scenes)
    segments = plan_segments(survey, longest, warm_up)
    assert segments[0].start == 0 and segments[-1].stop == survey.frames
    for before, after in itertools.pairwise(segments):
        assert before.stop == after.start
    for segment in segments:
        scene = segment.scene
        assert scene in survey.scenes
        assert scene.start <= segment.first <= segment.start < segment.stop <= scene.stop
        assert segment.stop - segment.start <= longest
        lead = min(warm_up, segment.start - scene.start) if scene.box else 0
        assert segment.start - segment.first == lead
    for scene in survey.scenes:
        lengths = [s.stop - s.start for s in segments if s.scene == scene]
        assert max(lengths) - min(lengths) <= 1


def test_a_short_video_is_one_segment():
    (segment,) = plan_segments(survey_of([(1, True)]))
    assert (segment.first, segment.start, segment.stop) == (0, 0, 1)


@pytest.mark.parametrize(("longest", "warm_up"), [(0, 8), (10, -1)])
def test_impossible_plans_are_refused(longest, warm_up):
    with pytest.raises(ValueError):
        plan_segments(survey_of([(5, True)]), longest, warm_up)
