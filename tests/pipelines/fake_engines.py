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
    """Fills holes with grey; frames of some heights are fatal.

    As on a CUDA device, what has failed once fails ever after.
    """

    plan = ReferencePlan(far=1, near=(1,))
    lookahead = 1
    seconds = 0.0  # of a frame
    broken = False

    def inpaint(self, frames: np.ndarray, masks: np.ndarray, progress=None) -> np.ndarray:
        height = frames.shape[1]
        if height == KILLS:
            os._exit(1)
        self.broken = self.broken or height == FAILS
        if self.broken:
            raise RuntimeError("the engine failed")
        for number in range(len(frames) if progress else 0):
            progress(number + 1, len(frames))
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


class TogetherEngine(GreyEngine):
    """Begins once `processes` of its kind are at work, or after a minute; they sign in `folder`."""

    def __init__(self, folder: Path, processes: int) -> None:
        self._folder, self._processes = folder, processes

    def stream(self, pairs, **options):
        (self._folder / str(os.getpid())).touch()
        until = time.monotonic() + 60
        while len(list(self._folder.iterdir())) < self._processes and time.monotonic() < until:
            time.sleep(0.1)
        yield from super().stream(pairs, **options)


def load_together(folder: Path, device: str, signed: Path, processes: int) -> TogetherEngine:
    return TogetherEngine(signed, processes)


def load_grey(folder: Path, device: str) -> GreyEngine:
    return GreyEngine()


def load_slow(folder: Path, device: str) -> SlowEngine:
    return SlowEngine()
