"""What the batch job costs beside its work: against a bare loop, from 1 to 2 workers, in memory.

    python -m pipelines.bench_batch [--frames 24] [--size 240x432] [--model FOLDER]

1. frames per second of the whole job on as many cores as it has workers, from the first finished
   video to the last (starting up is told apart), over those of a bare loop in one process that only
   decodes, completes and encodes, on the same cores with a thread of arithmetic for each;
2. the same with 2 workers on 2 cores over 1 worker on 1 core;
3. peak memory of a worker for videos of different length.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from cssta.measure import machine
from cssta.video import VideoWriter, open_source, write_video


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=24, help="of each video")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--size", default="240x432", help="height x width")
    parser.add_argument("--model", type=Path, help="folder; default: the shipped weights")
    parser.add_argument("--workers", type=int, default=2, help="compared with 1; 1: not compared")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--quality", action="store_true", help="measure quality too, as by default")
    parser.add_argument("--lengths", default="48,480", help="frames, for the peak of memory")
    options = parser.parse_args(argv)
    size = tuple(int(side) for side in options.size.split("x"))
    from cssta.checkpoint import DEFAULT_MODEL

    model = options.model or Path(DEFAULT_MODEL)
    found: dict[str, object] = {"machine": machine()["device"], "size": options.size}
    with tempfile.TemporaryDirectory(prefix="cssta-bench-") as name:
        folder = Path(name)
        bucket(folder / "in", [options.frames] * options.videos, size)
        counts = sorted({1, options.workers})
        rounds: list[dict[str, float]] = []
        # In turns, so that whatever else the machine does falls on all alike.
        for number in range(options.rounds):
            rates = {}
            for workers in counts:
                with cores(workers):
                    bare = rates[f"bare_{workers}"] = bare_loop(folder, model, workers)
                    told = job(folder, model, workers, options.quality, number)
                rates |= {f"job_{workers}": told["fps"], f"seconds_{workers}": told["seconds"]}
                show(f"round {number}: bare, {workers} core(s)", f"{bare:.3f} frames/s")
                text = f"{told['fps']:.3f} frames/s at work, {told['seconds']:.0f} s in all"
                show(f"round {number}: job, {workers} core(s)", text)
            rounds.append(rates)
        found["rounds"] = rounds
        for workers in counts:
            over = median(rates[f"job_{workers}"] / rates[f"bare_{workers}"] for rates in rounds)
            found[f"over_bare_{workers}"] = over
            show(f"job over bare loop, {workers} core(s)", f"{over:.2f}")
        if options.workers > 1:
            last = options.workers
            more = median(rates[f"job_{last}"] / rates["job_1"] for rates in rounds)
            whole = median(rates["seconds_1"] / rates[f"seconds_{last}"] for rates in rounds)
            found |= {"more_workers": more, "more_workers_whole": whole}
            show(f"{last} workers over 1", f"{more:.2f} at work, {whole:.2f} with all starting up")
        for length in (int(text) for text in options.lengths.split(",") if text):
            one = folder / f"length-{length}"
            bucket(one / "in", [length], size)
            peak = job(one, model, 1, options.quality)["peak_mib"]
            found[f"peak_mib_{length}"] = peak
            show(f"peak of a worker, {length} frames", f"{peak:.0f} MiB")
    print(json.dumps(found))
    return 0


def show(label: str, text: str) -> None:
    print(f"{label:32} {text}", flush=True)


def bucket(folder: Path, lengths: list[int], size: tuple[int, int]) -> None:
    """Videos of a texture that drifts, whose masks will be drawn by seed."""
    rng = np.random.default_rng(0)
    height, width = size
    wide = rng.integers(0, 255, (height // 8 + 1, width // 4 + 1, 3), dtype=np.uint8)
    wide = wide.repeat(8, 0).repeat(8, 1)[:height]
    for number, frames in enumerate(lengths):
        starts = [frame % width for frame in range(frames)]
        clip = np.stack([wide[:, start : start + width] for start in starts])
        write_video(folder / f"{number}.mp4", clip, 24)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Whatever is started in here runs on so many cores, where the system can say so (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    all_cores = os.sched_getaffinity(0)
    if number > len(all_cores):
        raise SystemExit(f"{number} workers want {number} cores; there are {len(all_cores)}")
    os.sched_setaffinity(0, sorted(all_cores)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def bare_loop(folder: Path, model: Path, threads: int) -> float:
    """Frames per second of decode, complete, encode, one after the other in one process."""
    import torch

    from cssta.engine import Inpainter
    from pipelines.drawn_masks import DrawnMasks

    torch.set_num_threads(threads)
    engine = Inpainter.load(model)
    frames = 0
    started = 0.0
    for number, path in enumerate(sorted((folder / "in").glob("*.mp4"))):
        source = open_source(path)
        info = source.info
        masks = DrawnMasks(number, info.frames, info.height, info.width, (0.05, 0.35))
        pairs = ((f.rgb(), m) for f, m in zip(source.frames(), masks.masks(), strict=True))
        spread = engine.plan.spread(info.frames)
        picked, holes = source.pick(spread), masks.pick(spread)
        references = ((i, picked[i].rgb(), holes[i]) for i in spread)
        if number == 1:  # the first video only warms up
            started, frames = time.monotonic(), 0
        output = folder / f"bare-{number}.mp4"
        with (
            VideoWriter(output, info.fps, info.height, info.width, 16) as writer,
            closing(engine.stream(pairs, references=references)) as results,
        ):
            for result in results:
                writer.write(result[None])
                frames += 1
    return frames / (time.monotonic() - started)


def job(
    folder: Path, model: Path, workers: int, quality: bool, number: int = 0
) -> dict[str, float]:
    """The whole job on a cluster of this machine: its rate while it works, seconds, peak memory."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    from pipelines.batch import complete_bucket
    from pipelines.config import JobConfig

    output = folder / f"out-{workers}-{number}"
    inference = {"videos": str(folder / "in"), "output": str(output), "actors": workers}
    inference |= {"quality": quality, "sheets": 0}
    cfg = JobConfig.parse({"data": {"videos": "x"}, "inference": inference})
    search = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}}
    ray.init(
        address="local", num_cpus=workers + 1, log_to_driver=False, logging_level="ERROR",
        runtime_env=search, include_dashboard=False, object_store_memory=2 * 10**8,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    marks: list[tuple[float, int]] = []
    started = time.monotonic()
    try:
        watch = PeakMemory()
        summary = complete_bucket(
            cfg, model, on_video=lambda o, *_: marks.append((time.monotonic(), o.frames))
        )
        peak = watch.stop()
    finally:
        ray.shutdown()
    if summary.failures:
        raise SystemExit(summary.text())
    seconds = time.monotonic() - started
    # While all workers are at work: from when each has finished one video.
    begun, ended = marks[min(workers, len(marks)) - 1][0], marks[-1][0]
    frames = sum(count for _, count in marks[workers:])
    return {
        "fps": frames / (ended - begun) if frames else 0.0,
        "seconds": seconds,
        "peak_mib": peak,
    }


class PeakMemory:
    """The largest private memory that one of Ray's workers here had, sampled, in MiB.

    These look through videos, complete and assemble them.
    """

    def __init__(self) -> None:
        import threading

        self._over, self.peak = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                        info = process.memory_info()
                        self.peak = max(self.peak, (info.rss - info.shared) / 2**20)
                except psutil.Error:
                    continue

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self.peak


if __name__ == "__main__":
    sys.exit(main())
