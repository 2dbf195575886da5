"""Memory over a long clip: frames come from an iterator and go to one; the process must not grow.

Every method is a process of its own. Its resident size is read ten times on the way, each time
after what the heap has free was given back, and so is the highest that it ever was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch

from cssta.benchmark import clip, inpainter
from cssta.config import PRESETS
from cssta.heap import trim_heap
from cssta.measure import alone, machine, resident_bytes
from cssta.stream import Pair

METHODS = ("networks", "cssta")
READINGS = 10
PERIOD = 48  # frames after which the clip turns back
FLAT_MIB = 16  # by which readings differ in a process that keeps nothing


def endless(frames: int, height: int, width: int, hole: float, every: int) -> Iterator[Pair]:
    """So many pairs of a texture that drifts to and fro, a hole in every `every`-th.

    Each is an array of its own, as a decoder's are: who keeps one keeps its memory.
    """
    video, masks = clip(PERIOD, height, width, hole)
    for number in range(frames):
        place = number % (2 * PERIOD - 2)
        place = min(place, 2 * PERIOD - 2 - place)
        yield video[place].copy(), masks[place] & (number % every == 0)


def growth(readings: list[float]) -> float:
    """Last three readings over the second to fourth, means; the first is before all is in use."""
    return mean(readings[-3:]) - mean(readings[1:4])


def measure(case: dict) -> dict:
    """The case's row: `resident_mib` at every tenth, by how much it grew, and the highest ever.

    Raises OSError where the system does not tell a process's resident size.
    """
    torch.set_num_threads(case["threads"])
    width, height = (int(side) for side in case["size"].split("x"))
    frames = case["frames"]
    stream = inpainter(case["method"], case["model"]).stream
    pairs = endless(frames, height, width, case["hole"], case["hole_every"])
    marks = {frames * tenth // READINGS for tenth in range(1, READINGS + 1)}
    readings, started = [], time.perf_counter()
    for done, _ in enumerate(stream(pairs), 1):
        if done in marks:
            trim_heap()
            readings.append(resident_bytes()[0] / 2**20)
    seconds = time.perf_counter() - started
    row = {"resident_mib": readings, "growth_mib": growth(readings), "seconds": seconds / frames}
    row |= {"flat": row["growth_mib"] <= FLAT_MIB, "highest_mib": resident_bytes()[1] / 2**20}
    if torch.cuda.is_available():
        row["device_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return case | row


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table, write JSON beside it, and exit with 1 where a process grew."""
    options = _parse(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    keys = ("frames", "size", "hole_every", "hole", "threads")
    shared = {key: getattr(options, key) for key in keys}
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(", ".join(f"{key} {value}" for key, value in shared.items()), end="\n\n")
    print("| method | model | resident MiB at every tenth | grown | highest | s per frame |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for method in options.methods:
        case = {"method": method, "model": options.model_size, **shared}
        row = alone("cssta.benchmark_stream", case)
        rows.append(row)
        readings = " ".join(f"{reading:.0f}" for reading in row["resident_mib"])
        print(
            f"| {method} | {options.model_size} | {readings} | {row['growth_mib']:.0f} "
            f"| {row['highest_mib']:.0f} | {row['seconds']:.3f} |",
            flush=True,
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    if grown := [row["method"] for row in rows if not row["flat"]]:
        sys.exit(f"memory grew with the clip: {', '.join(grown)}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument(
        "--model-size",
        default="default",
        metavar="MODEL",
        help=f"{', '.join(PRESETS)} (random weights), default, or a model folder",
    )
    parser.add_argument("--frames", type=int, default=2000, help="at least ten")
    parser.add_argument("--size", default="432x240", metavar="WIDTHxHEIGHT")
    parser.add_argument("--hole-every", type=int, default=25, help="frames from hole to hole")
    parser.add_argument("--hole", type=float, default=0.15, help="the hole's share of a frame")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/bench-stream.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.frames < READINGS or options.hole_every < 1:
        parser.error(f"--frames must be {READINGS} or more, --hole-every 1 or more")
    return options


if __name__ == "__main__":
    main()
