"""What completing a frame costs: FLOPs, seconds, memory; beside dense attention or a peer.

Every measurement is a process of its own. Methods:
    cssta     as `cssta inpaint` completes: pixels that other frames see are brought along by
              optical flow (OpenCV's, which counts no FLOPs here), networks do what is left
    networks  the networks alone, every hole pixel: the paper's method
    float32   the same in float32 by sums along diagonals: a CPU without a matrix unit
    dense     the same with eq. 1 as it is written: every position a query, all scores at once

Shapes: T frames, H and W size.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from cssta.checkpoint import Model, pick_device
from cssta.config import PRESETS, ModelConfig
from cssta.dense_attention import DenseAttention, score_bytes
from cssta.engine import PROPAGATION, TEXTURE, Inpainter
from cssta.inpainting import InpaintingNetwork
from cssta.masks import freeform_masks
from cssta.measure import PeakMemory, alone, count_flops, machine, timed
from cssta.planner import free_memory

SIZES = ("256x256", "432x240", "864x480", "1280x720")
METHODS = ("cssta", "networks", "float32", "dense")
WARM_UP, WARM_UP_CUDA = 2, 32  # frames; a GPU also has to see a full batch
Complete = Callable[[np.ndarray, np.ndarray], np.ndarray]


def clip(frames: int, height: int, width: int, hole: float) -> tuple[np.ndarray, np.ndarray]:
    """A texture that drifts, uint8 (T, H, W, 3), with free-form holes that drift otherwise."""
    rng = np.random.default_rng(0)
    wide = np.zeros((height, width + frames, 3), np.float32)
    for size in (4, 16, 64):  # detail of several sizes
        coarse = rng.random((height // size + 2, (width + frames) // size + 2, 3), np.float32)
        wide += cv2.resize(coarse, (width + frames, height), interpolation=cv2.INTER_CUBIC) / 3
    wide = (255 * wide.clip(0, 1)).astype(np.uint8)
    video = np.stack([wide[:, t : t + width] for t in range(frames)])
    masks = freeform_masks(rng, frames, height, width, ratio=(hole, hole), moving=True)
    return video, masks


def build(method: str, model: str) -> Complete:
    """One of METHODS with a `model` as below, or a peer: `module:function`, `file.py:function`."""
    return peer(method) if ":" in method else inpainter(method, model).inpaint


def inpainter(method: str, model: str) -> Inpainter:
    """What completes by one of METHODS.

    `model`: a size with random weights, a model folder, or `default`.
    """
    whole = method == "cssta"
    parts = {"propagation": PROPAGATION if whole else None, "texture": TEXTURE if whole else None}
    if model in PRESETS:
        config = ModelConfig.preset(model)
        networks = Model(config, InpaintingNetwork(config))
        made = Inpainter(networks, pick_device(None), **parts)
    else:
        source = None if model == "default" else model
        made = Inpainter.load(source, **parts)
    refinement = made.network.refinement
    if method == "float32":
        made.mixed_precision = refinement.attention.unfold = False
    if method == "dense":
        refinement.attention = DenseAttention(refinement.attention)
        made.batch = 1
    return made


def peer(name: str) -> Complete:
    """Another system's `inpaint(frames, masks)`: uint8 (T, H, W, 3) and bool (T, H, W) in."""
    source, _, function = name.rpartition(":")
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(source).stem, source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    return getattr(module, function)


def measure(case: dict) -> dict:
    """The case's row: its clip completed twice, once timed and watched, once counted."""
    torch.set_num_threads(case["threads"])
    width, height = (int(side) for side in case["size"].split("x"))
    if case["method"] == "dense":
        needed = score_bytes(height, width, references=6)
        if needed > free_memory(pick_device(None)):
            raise MemoryError(f"does not fit: {needed / 2**30:.0f} GiB of scores per frame")
    complete = build(case["method"], case["model"])
    video, masks = clip(case["frames"], height, width, case["hole"])
    warm_up = WARM_UP_CUDA if torch.cuda.is_available() else WARM_UP
    complete(video[:warm_up], masks[:warm_up])  # what is done once does not count
    with PeakMemory() as memory:
        wall, cpu = timed(lambda: complete(video, masks))
    frames = case["frames"]
    flops = count_flops(lambda: complete(video, masks)) / frames
    row = {
        "gflops": flops / 1e9,
        "seconds": wall / frames,
        "cpu_seconds": cpu / frames,
        "peak_mib": memory.bytes / 2**20,
    }
    if torch.cuda.is_available():
        row["tflops_per_s"] = flops / 1e12 / row["seconds"]
    return case | row


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table row by row and write JSON beside it."""
    options = _parse(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    torch.set_num_threads(options.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{options.hole:.0%} hole, {options.frames} frames; all figures per frame of the clip\n")
    print("| method | model | size | GFLOPs | s | CPU s | frames/s | TFLOP/s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for row in _rows(options):
        rows.append(row)
        print(_line(row), flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument(
        "--peer", nargs="+", default=[], help="module:function or path/to/file.py:function"
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WIDTHxHEIGHT")
    parser.add_argument(
        "--sizes-of-model",
        nargs="+",
        default=["default"],
        metavar="MODEL",
        help=f"{', '.join(PRESETS)} (random weights), default, or a model folder",
    )
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--hole", type=float, default=0.15, help="the hole's share of a frame")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _rows(options: argparse.Namespace) -> Iterator[dict]:
    methods = [(m, model) for m in options.methods for model in options.sizes_of_model]
    methods += [(name, "") for name in options.peer]
    shared = {key: getattr(options, key) for key in ("frames", "hole", "threads")}
    for size in options.sizes:
        for method, model in methods:
            case = {"method": method, "model": model, "size": size, **shared}
            try:
                yield alone("cssta.benchmark", case)
            except RuntimeError as error:  # and the others are still measured
                yield case | {"error": str(error)}


def _line(row: dict) -> str:
    head = f"| {row['method']} | {row['model']} | {row['size']} |"
    if "error" in row:
        return f"{head} {row['error']} | | | | | |"
    achieved = f"{row['tflops_per_s']:.1f}" if "tflops_per_s" in row else ""
    return (
        f"{head} {row['gflops']:.1f} | {row['seconds']:.3f} | {row['cpu_seconds']:.3f} "
        f"| {1 / row['seconds']:.2f} | {achieved} | {row['peak_mib']:.0f} |"
    )


if __name__ == "__main__":
    main()
