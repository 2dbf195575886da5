"""What the batch job costs beside its work: against a bare loop, from 1 to 2 workers, in memory.

    python -m pipelines.bench_batch [--frames 16] [--size 240x432] [--model FOLDER]
    python -m pipelines.bench_batch --rounds 0     # memory only
    python -m pipelines.bench_batch --lengths ""   # rates only

1. frames per second of the whole job on as many cores as it has workers, from the first finished
   video to the last (starting up is told apart), over those of a bare loop in one process that only
   decodes, completes and encodes, on the same cores with a thread of arithmetic for each;
2. the same with 2 workers on 2 cores over 1 worker on 1 core;
3. peak memory of each kind of worker for videos of different length, small and with a box for a
   hole, so that the long ones end in minutes (masks that are drawn are kept: they grow).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from cssta.measure import machine
from cssta.video import VideoWriter, open_source, write_video


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=16, help="of each video")
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--size", default="240x432", help="height x width")
    parser.add_argument("--model", type=Path, help="folder; default: the shipped weights")
    parser.add_argument("--workers", type=int, default=2, help="compared with 1; 1: not compared")
    parser.add_argument("--rounds", type=int, default=1, help="of which the median counts")
    parser.add_argument("--quality", action="store_true", help="measure quality too, as by default")
    parser.add_argument("--lengths", default="240,960,1920", help="frames, for the peak of memory")
    parser.add_argument("--memory-size", default="96x128", help="of those videos, height x width")
    options = parser.parse_args(argv)
    from cssta.checkpoint import DEFAULT_MODEL

    model = options.model or Path(DEFAULT_MODEL)
    found: dict[str, object] = {"machine": machine()["device"], "size": options.size}
    with tempfile.TemporaryDirectory(prefix="cssta-bench-") as name:
        folder = Path(name)
        bucket(folder / "in", [options.frames] * options.videos, sides(options.size))
        counts = sorted({1, options.workers})
        rounds: list[dict[str, float]] = []
        # In turns, so that whatever else the machine does falls on all alike.
        for number in range(options.rounds):
            rates = {}
            for workers in counts:
                with cores(workers):
                    bare = rates[f"bare_{workers}"] = bare_loop(folder, model, workers)
                    output = folder / f"out-{workers}-{number}"
                    fps, seconds = job(folder / "in", output, model, workers, options.quality)
                rates |= {f"job_{workers}": fps, f"seconds_{workers}": seconds}
                show(f"round {number}: bare, {workers} core(s)", f"{bare:.3f} frames/s")
                text = f"{fps:.3f} frames/s at work, {seconds:.0f} s in all"
                show(f"round {number}: job, {workers} core(s)", text)
            rounds.append(rates)
        found["rounds"] = rounds
        for workers in counts if rounds else ():
            over = median(rates[f"job_{workers}"] / rates[f"bare_{workers}"] for rates in rounds)
            found[f"over_bare_{workers}"] = over
            show(f"job over bare loop, {workers} core(s)", f"{over:.2f}")
        if rounds and options.workers > 1:
            last = options.workers
            more = median(rates[f"job_{last}"] / rates["job_1"] for rates in rounds)
            whole = median(rates["seconds_1"] / rates[f"seconds_{last}"] for rates in rounds)
            found |= {"more_workers": more, "more_workers_whole": whole}
            show(f"{last} workers over 1", f"{more:.2f} at work, {whole:.2f} with all starting up")
        for length in (int(text) for text in options.lengths.split(",") if text):
            one, small = folder / f"length-{length}", sides(options.memory_size)
            bucket(one / "in", [length], small)
            watch = PeakMemory()
            seconds = job(one / "in", one / "out", model, 1, options.quality, box(small))[1]
            found[f"peak_mib_{length}"] = peaks = watch.stop()
            text = ", ".join(f"{kind} {peak:.0f}" for kind, peak in peaks.items())
            show(f"peaks, {length} frames", f"{text} MiB ({seconds:.0f} s)")
    print(json.dumps(found))
    return 0


def sides(size: str) -> tuple[int, int]:
    """Height and width of "HxW"."""
    height, width = (int(side) for side in size.split("x"))
    return height, width


def box(size: tuple[int, int]) -> str:
    """A rule for masks that takes no memory: a sixteenth of the frame."""
    height, width = size
    return f"box:{width // 4},{height // 4},{width // 4},{height // 4}"


def show(label: str, text: str) -> None:
    print(f"{label:32} {text}", flush=True)


def bucket(folder: Path, lengths: list[int], size: tuple[int, int]) -> None:
    """Videos of a texture that drifts."""
    rng = np.random.default_rng(0)
    height, width = size
    wide = rng.integers(0, 255, (height // 8 + 1, width // 4 + 1, 3), dtype=np.uint8)
    wide = wide.repeat(8, 0).repeat(8, 1)[:height]
    for number, frames in enumerate(lengths):
        starts = [frame % width for frame in range(frames)]
        write_video(folder / f"{number}.mp4", (wide[:, at : at + width] for at in starts), 24)


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
    videos: Path,
    output: Path,
    model: Path,
    workers: int,
    quality: bool,
    masks: str | None = None,
) -> tuple[float, float]:
    """The whole job on a cluster of this machine: frames/s while all are at work, all seconds."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    from pipelines.batch import complete_bucket
    from pipelines.config import JobConfig

    inference = {"videos": str(videos), "output": str(output), "actors": workers, "masks": masks}
    inference |= {"quality": quality, "sheets": 0}
    inference |= {} if quality else {"self_test_frames": 0}
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
        summary = complete_bucket(
            cfg, model, on_video=lambda o, *_: marks.append((time.monotonic(), o.frames))
        )
    finally:
        ray.shutdown()
    if summary.failures:
        raise SystemExit(summary.text())
    seconds = time.monotonic() - started
    # While all workers are at work: from when each has finished one video.
    begun, ended = marks[min(workers, len(marks)) - 1][0], marks[-1][0]
    frames = sum(count for _, count in marks[workers:])
    return frames / (ended - begun) if frames else 0.0, seconds


KINDS = {"survey_group": "survey", "MapWorker": "completer", "assemble_task": "assembler"}
"""Parts of the titles that Ray gives its workers, by what they do just then."""


class PeakMemory:
    """The largest private memory that Ray's workers here had while they did something, sampled."""

    def __init__(self) -> None:
        self._over, self._peaks = threading.Event(), dict.fromkeys(KINDS.values(), 0.0)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    title = (process.cmdline() or [""])[0]
                    if not title.startswith("ray::"):
                        continue
                    for part, kind in KINDS.items():
                        if part in title:
                            info = process.memory_info()
                            private = (info.rss - info.shared) / 2**20
                            self._peaks[kind] = max(self._peaks[kind], private)

    def peaks(self) -> dict[str, float]:
        """MiB by kind of worker, of those that were seen so far."""
        return {kind: peak for kind, peak in self._peaks.items() if peak}

    def stop(self) -> dict[str, float]:
        """The same, for the last time."""
        self._over.set()
        self._thread.join()
        return self.peaks()


if __name__ == "__main__":
    sys.exit(main())
