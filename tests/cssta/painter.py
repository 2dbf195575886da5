"""A stand-in for the model, for tests of everything around it."""

from __future__ import annotations

from collections import deque

import numpy as np

from cssta.references import ReferencePlan


class Painter:
    """Paints holes black, reading ahead as the engine does; `seen`: what each stream was given."""

    plan = ReferencePlan()
    lookahead = 3
    device = "cpu"

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def painter(self, path=None):
        return None

    def stream(self, pairs, *, references=None, start=0, region=None, lead=0, painter=None):
        given = {
            "references": {number: frame for number, frame, _ in references},
            "start": start,
            "region": region,
            "lead": lead,
            "frames": [],
        }
        self.seen.append(given)
        waiting = deque()
        for number, (frame, mask) in enumerate(pairs):
            given["frames"].append(frame)
            if number >= lead:
                waiting.append(np.where(mask[..., None], np.zeros_like(frame), frame))
            if len(waiting) > self.lookahead:
                yield waiting.popleft()
        yield from waiting
