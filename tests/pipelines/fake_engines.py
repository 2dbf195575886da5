"""Engines without a network: fast, and what they make of a video is known.

Workers import this module by its name, as they do the packages (the tests' cluster has the
repository on its path).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from cssta.references import ReferencePlan

GREY = 90
KILLS, FAILS = 50, 54  # frame heights that mark a video which takes its process down, or raises


class GreyEngine:
    """Fills holes with grey; frames of some heights are fatal."""

    plan = ReferencePlan(far=1, near=(1,))
    lookahead = 1
    seconds = 0.0  # of a frame

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        height = frames.shape[1]
        if height == KILLS:
            os._exit(1)
        if height == FAILS:
            raise RuntimeError("the engine failed")
        grey = GREY if frames.dtype == np.uint8 else GREY * 257
        return np.where(masks[..., None], frames.dtype.type(grey), frames)

    def stream(self, pairs, *, lead=0, **options):
        for number, (frame, mask) in enumerate(pairs):
            if number >= lead:
                if self.seconds:
                    time.sleep(self.seconds)
                yield self.inpaint(frame[None], mask[None])[0]


class SlowEngine(GreyEngine):
    """The same, at some 50 frames a second: so that there is time to kill it at work."""

    seconds = 0.02


def load_grey(folder: Path, device: str) -> GreyEngine:
    return GreyEngine()


def load_slow(folder: Path, device: str) -> SlowEngine:
    return SlowEngine()
