"""What a batch would do, without doing it: which videos, how long, at what cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from cssta.survey import survey
from cssta.video.scan import scan
from pipelines.actors import LoadEngine, load_inpainter, load_packed, plan_pool
from pipelines.batch import batch_settings, clean_nodes, pin_model
from pipelines.batch_estimate import (
    Calibration,
    Estimate,
    Surveyed,
    calibrate,
    estimate,
    typical,
)
from pipelines.batch_plan import Plan, plan_batch
from pipelines.batch_record import VideoTask, task_from_json
from pipelines.batch_source import BatchSettings, Opened, opened
from pipelines.batch_units import most_units
from pipelines.config import JobConfig
from pipelines.watchdog import Watchdog

SAMPLE = 12  # videos that are looked into; the others are reckoned by their bytes
LOOKED, SPANS = 240, 4  # frames of each that are decoded, at most, and in how many places
Look = tuple[int, int, int, float, int]  # frames, height, width, hole ratio, frames with a hole


@dataclass(frozen=True)
class DryRun:
    """A plan with its price; `problems` of videos that were looked at and cannot be completed."""

    plan: Plan
    looked_at: int
    problems: tuple[str, ...]
    estimate: Estimate | None

    def text(self) -> str:
        """For a person."""
        todo, settled = self.plan.tasks, self.plan.settled
        skipped = sum(outcome.status == "skipped" for outcome in settled)
        lines = [f"to do: {task.name} -> {task.output}" for task in todo]
        lines += [f"failed, {o.reason}: {o.message}" for o in settled if o.status == "failed"]
        lines += [f"would fail: {problem}" for problem in self.problems]
        lines.append(
            f"{len(todo)} videos to complete, {skipped} already there, "
            f"{len(settled) - skipped} that cannot be"
        )
        if self.estimate is not None:
            if self.looked_at < len(todo):
                lines.append(f"{self.looked_at} were looked into, the others go by their bytes")
            lines.append(self.estimate.text())
        return "\n".join(lines)


def dry_run(
    cfg: JobConfig,
    model: str | Path | None = None,
    *,
    load_engine: LoadEngine = load_inpainter,
    seconds: float = 10.0,
) -> DryRun:
    """Plan a batch, look into a few of its videos, try the model for so many seconds.

    Nothing is written, but to the nodes' scratch folders while it lasts. Needs a connected Ray.
    Raises as `complete_bucket` does, but LeaseError.
    """
    identity, files = pin_model(cfg, model)
    plan = plan_batch(cfg, identity)
    settings = batch_settings(cfg, identity)
    try:
        return _tried(cfg, plan, settings, files, load_engine, seconds)
    finally:
        clean_nodes(settings.scratch)


def _tried(
    cfg: JobConfig,
    plan: Plan,
    settings: BatchSettings,
    files: dict[str, bytes],
    load_engine: LoadEngine,
    seconds: float,
) -> DryRun:
    sample = spread(plan.tasks, SAMPLE)
    look = ray.remote(num_cpus=0.5, max_retries=1)(look_task)
    pending = [look.remote(json.dumps(vars(task)), settings) for task in sample]
    looks: dict[str, Look] = {}
    problems = []
    for task, reference in zip(sample, pending, strict=True):
        try:
            looks[task.name] = ray.get(reference)
        except Exception as error:  # (a process may die of a damaged file)
            cause = getattr(error, "cause", None) or error
            problems.append(f"{task.name}: {' '.join(str(cause).split())[:400]}")
    rows = reckon(plan.tasks, looks)
    found = None
    if rows:
        pool = plan_pool(cfg, ray.cluster_resources(), most_units(plan.tasks))
        middle = typical(rows)
        measure = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus)(_calibrate)
        share = middle.hole_ratio or 0.1
        calibration = ray.get(
            measure.remote(
                files, load_engine, pool.threads, middle.height, middle.width, share, seconds
            )
        )
        found = estimate(
            rows,
            calibration,
            price_per_hour=cfg.inference.price_per_hour,
            workers=pool.size,
            tested=cfg.inference.self_test_frames,
        )
    return DryRun(plan, len(looks), tuple(problems), found)


def spread(tasks: list[VideoTask], count: int) -> list[VideoTask]:
    """At most so many tasks, from the smallest input to the largest."""
    ordered = sorted(tasks, key=lambda task: (task.size, task.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (count - 1))] for i in range(count)]


def look_task(task: str, settings: BatchSettings) -> Look:
    """Look into one video, however long, for a moment: what is seen stands for the rest.

    Raises VideoError or StorageError.
    """
    with (
        Watchdog(settings.stall_seconds) as watchdog,
        opened(task_from_json(task), settings, watchdog.feed) as video,
    ):
        info, holes = video.source.info, []
        for span in spans(video):
            found = survey(video.source, video.masks, cuts=False, span=span, progress=watchdog.feed)
            holes.append(found.holes[slice(*span)])
    seen = np.concatenate(holes)
    with_hole = round(np.count_nonzero(seen) / len(seen) * info.frames)
    share = float(seen.mean() / (info.height * info.width))
    return info.frames, info.height, info.width, share, with_hole


def spans(video: Opened) -> list[tuple[int, int]]:
    """Frames to look at, at most LOOKED, in places from which decoding can start."""
    info = video.source.info
    if info.frames <= LOOKED:
        return [(0, info.frames)]
    wanted = [number * info.frames // SPANS for number in range(SPANS)]
    if not info.is_folder:
        found = scan(info.path)
        keys = found.keys if found.seekable else ()
        wanted = [max((key for key in keys if key <= start), default=0) for start in wanted]
    starts = sorted(set(wanted))
    length = LOOKED // len(starts)
    ends = [*starts[1:], info.frames]
    return [(start, min(start + length, end)) for start, end in zip(starts, ends, strict=True)]


def reckon(tasks: list[VideoTask], looks: dict[str, Look]) -> list[Surveyed]:
    """Every task as far as known; what was not looked at is like the one nearest in bytes."""
    known = [task for task in tasks if task.name in looks]
    if not known:
        return []
    rows = []
    for task in tasks:
        like = min(known, key=lambda other: (abs(other.size - task.size), other.name != task.name))
        like = task if task.name in looks else like
        frames, height, width, ratio, holes = looks[like.name]
        scale = task.size / like.size if like.size and like is not task else 1.0
        more = max(1, round(frames * scale))
        rows.append(Surveyed(task.name, more, height, width, ratio, round(holes * more / frames)))
    return rows


def _calibrate(
    files: dict[str, bytes],
    load_engine: LoadEngine,
    threads: int,
    height: int,
    width: int,
    hole_ratio: float,
    seconds: float,
) -> Calibration:
    engine = load_packed(files, load_engine, threads)
    return calibrate(engine, height, width, hole_ratio, seconds)
