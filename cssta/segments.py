"""How a video is cut into pieces that are completed, stored and resumed one by one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from cssta.survey import Scene, Survey

LONGEST = 240  # frames; what is lost at most when work stops
WARM_UP = 8  # frames; the recurrent state forgets its start within about so many


@dataclass(frozen=True)
class Segment:
    """Frames start to stop - 1 of one scene.

    `first` is where the recurrence starts: the frames before `start` only lead in.
    """

    start: int
    stop: int
    first: int
    scene: Scene


def plan_segments(survey: Survey, longest: int = LONGEST, warm_up: int = WARM_UP) -> list[Segment]:
    """Segments that cover the video in order, none across a scene cut or above `longest` frames.

    A scene is cut evenly. `warm_up` frames lead in, as far as the scene has them and has holes.
    Raises ValueError if `longest` is below 1 or `warm_up` below 0.
    """
    if longest < 1 or warm_up < 0:
        raise ValueError(f"no segments of {longest} frames with {warm_up} before them")
    segments = []
    for scene in survey.scenes:
        length = scene.stop - scene.start
        count = -(-length // longest)
        lead = warm_up if scene.box else 0
        edges = [scene.start + length * number // count for number in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            segments.append(Segment(start, stop, max(scene.start, start - lead), scene))
    return segments
