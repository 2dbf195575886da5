"""What a batch will take: frames, hours and cost, from a few seconds of trying.

Completing costs by the area that is worked on, a crop around the holes; reading, checking and
writing by the whole frame. Both are measured at one size and scaled with the area.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cssta.measure import machine
from cssta.region import crop_region, hole_box
from cssta.self_test import Completes
from cssta.video import open_source, write_video

READS = 4  # times a frame is decoded: survey, completion, and verification against its source
PASSED = 12  # frames of the clip that reading and writing are measured with
FEWEST, MOST = 2, 162  # frames of the clip that completing is measured with
CLIP_BYTES = 2**28  # that it may take
HOUR = 3600.0


class Surveyed(NamedTuple):
    """What is known of a video before it is completed.

    `hole_ratio`: the holes' share of all pixels, 0 to 1; `hole_frames`: how many frames have one
    (None: all, where the ratio is above 0); `box`: (y0, y1, x0, x1) around the holes (None: they
    are taken to be one compact hole).
    """

    name: str
    frames: int
    height: int
    width: int
    hole_ratio: float
    hole_frames: int | None = None
    box: tuple[int, int, int, int] | None = None

    @property
    def completed(self) -> int:
        """Frames to be completed."""
        if self.hole_frames is not None:
            return self.hole_frames
        return self.frames if self.hole_ratio > 0 else 0

    def worked_pixels(self) -> int:
        """Pixels that are worked on in each frame with a hole."""
        if not self.completed:
            return 0
        share = min(1.0, self.hole_ratio * self.frames / self.completed)
        box = self.box or _compact(self.height, self.width, share)
        y0, y1, x0, x1 = crop_region(box, self.height, self.width) or (
            0, self.height, 0, self.width
        )  # fmt: skip
        return (y1 - y0) * (x1 - x0)


@dataclass(frozen=True)
class Calibration:
    """What one worker needs, as measured.

    Attributes:
        complete: seconds per megapixel that is worked on.
        passing: CPU seconds per megapixel of a frame that is read, checked and written.
        device: "cpu" or "cuda".
        cores: CPU cores beside an accelerator.
        measured_at: size and machine, in words.
    """

    complete: float
    passing: float
    device: str
    cores: int
    measured_at: str


@dataclass(frozen=True)
class Estimate:
    """Of a batch; hours are of one worker each, `wall_hours` of all of them side by side.

    `gpu_hours` is 0 where there is none; `cost` None where no price is known.
    """

    videos: int
    frames: int
    hole_frames: int
    cpu_hours: float
    gpu_hours: float
    wall_hours: float
    workers: int
    price_per_hour: float | None
    calibration: Calibration

    @property
    def cost(self) -> float | None:
        """In the price's currency, for the time the workers are held."""
        if self.price_per_hour is None:
            return None
        return self.wall_hours * self.workers * self.price_per_hour

    def text(self) -> str:
        """For a person, with what it rests on."""
        hours = [f"{_hours(self.gpu_hours)} of GPU"] if self.gpu_hours else []
        hours += [f"{_hours(self.cpu_hours)} of CPU"]
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        lines = [
            f"{self.videos} videos, {self.frames:,} frames, {self.hole_frames:,} with a hole",
            f"about {' and '.join(hours)} in all; {_hours(self.wall_hours)} on {workers}",
        ]
        if self.cost is not None:
            lines.append(f"about {self.cost:,.2f} at {self.price_per_hour:g} per worker and hour")
        lines.append(
            f"(measured at {self.calibration.measured_at}; other machines, busier footage and "
            "scattered holes differ, and start-up comes on top)"
        )
        return "\n".join(lines)


def estimate(
    surveyed: Iterable[Surveyed | tuple],
    calibration: Calibration,
    *,
    price_per_hour: float | None = None,
    workers: int = 1,
    tested: int = 0,
) -> Estimate:
    """Add up a batch; rows as `Surveyed` or its first five fields. `price_per_hour`: a worker's.

    `tested`: frames of each video's self-test, whose second hole may be anywhere in the frame.
    Raises ValueError without a worker.
    """
    if workers < 1:
        raise ValueError(f"a batch needs a worker, not {workers}")
    rows = [Surveyed(*row) for row in surveyed]
    worked = sum(row.completed * row.worked_pixels() for row in rows)
    worked += sum(min(tested, row.completed) * row.height * row.width for row in rows)
    completing = calibration.complete * worked
    passing = calibration.passing * sum(row.frames * row.height * row.width for row in rows)
    completing, passing = completing / 1e6 / HOUR, passing / 1e6 / HOUR
    if calibration.device == "cpu":
        gpu, cpu = 0.0, completing + passing
        wall = cpu
    else:  # an accelerator works while CPUs read and write
        gpu, cpu = completing, passing
        wall = max(gpu, cpu / calibration.cores)
    return Estimate(
        videos=len(rows),
        frames=sum(row.frames for row in rows),
        hole_frames=sum(row.completed for row in rows),
        cpu_hours=cpu,
        gpu_hours=gpu,
        wall_hours=wall / workers,
        workers=workers,
        price_per_hour=price_per_hour,
        calibration=calibration,
    )


def typical(surveyed: Sequence[Surveyed | tuple]) -> Surveyed:
    """The video to calibrate by: half of the work is on smaller areas, half on larger ones.

    Raises ValueError where there is none.
    """
    rows = sorted((Surveyed(*row) for row in surveyed), key=Surveyed.worked_pixels)
    if not rows:
        raise ValueError("there is no video to calibrate by")
    work = np.cumsum([row.completed * row.worked_pixels() for row in rows])
    return rows[int(np.searchsorted(work, work[-1] / 2))]


def calibrate(
    engine: Completes, height: int, width: int, hole_ratio: float, seconds: float = 10.0
) -> Calibration:
    """Complete, write and read a made-up clip of this size for about so many seconds.

    A frame that takes longer is waited for: at least FEWEST are completed, twice.
    """
    started = time.monotonic()
    clip, masks = _clip(height, width, hole_ratio)
    frames = FEWEST
    engine.inpaint(clip[:frames], masks[:frames])  # at first, kernels are chosen
    while True:
        taken = _timed(lambda n=frames: engine.inpaint(clip[:n], masks[:n]))
        # Each of many frames costs more than of a few: there are more to borrow from.
        more = min(3 * frames, len(clip))
        left = seconds - (time.monotonic() - started)
        if more == frames or 1.5 * taken * more / frames > left:
            break
        frames = more
    region = crop_region(hole_box(masks[:frames]), height, width) or (0, height, 0, width)
    worked = (region[1] - region[0]) * (region[3] - region[2])
    words = f"{width}x{height}, {frames} frames, hole {100 * hole_ratio:.0f} %"
    return Calibration(
        complete=taken / frames / worked * 1e6,
        passing=_passing(clip[:PASSED]) / (height * width) * 1e6,
        device=getattr(getattr(engine, "device", None), "type", "cpu"),
        cores=os.cpu_count() or 1,
        measured_at=f"{words}, on {machine()['device']}",
    )


def _compact(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """The box of one hole of the frame's shape and this share of it, in the middle."""
    side = math.sqrt(share)
    tall, wide = max(1, round(side * height)), max(1, round(side * width))
    y, x = (height - tall) // 2, (width - wide) // 2
    return y, y + tall, x, x + wide


def _clip(height: int, width: int, hole_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """A texture that drifts, uint8 (T, H, W, 3), T at most MOST, with a hole that stands still."""
    frames = int(min(MOST, max(FEWEST, CLIP_BYTES // (3 * height * width))))
    rng = np.random.default_rng(0)
    wide = np.zeros((height, width + frames, 3), np.float32)
    for size in (4, 16, 64):  # detail of several sizes
        coarse = rng.random((height // size + 2, (width + frames) // size + 2, 3), np.float32)
        wide += cv2.resize(coarse, (width + frames, height), interpolation=cv2.INTER_CUBIC) / 3
    picture = (255 * wide.clip(0, 1)).astype(np.uint8)
    video = np.stack([picture[:, t : t + width] for t in range(frames)])
    masks = np.zeros(video.shape[:3], bool)
    y0, y1, x0, x1 = _compact(height, width, hole_ratio)
    masks[:, y0:y1, x0:x1] = True
    return video, masks


def _passing(clip: np.ndarray) -> float:
    """CPU seconds of a frame that is written once and decoded READS times."""
    even = clip[:, : clip.shape[1] // 2 * 2, : clip.shape[2] // 2 * 2]
    with tempfile.TemporaryDirectory(prefix="cssta-estimate-") as folder:
        path = Path(folder) / "clip.mp4"
        before = time.process_time()
        write_video(path, even, 24)
        written = time.process_time() - before
        before = time.process_time()
        with closing(open_source(path).frames()) as frames:
            for frame in frames:
                frame.rgb()
        return (written + READS * (time.process_time() - before)) / len(clip)


def _timed(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def _hours(hours: float) -> str:
    """For people: 0.4 min, 12 min, 3.4 h."""
    minutes = 60 * hours
    if minutes < 10:
        return f"{minutes:.1f} min"
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:,.1f} h"
