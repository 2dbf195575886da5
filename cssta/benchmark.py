"""What completing a frame costs: FLOPs, seconds, memory; beside dense attention or a peer.

Every measurement is a process of its own, so that its peak memory is its own. GFLOPs count a
multiply-add as two, as `torch.utils.flop_counter` does, over a whole clip with everything included.

Shapes: T frames, H and W size.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cssta.checkpoint import Model, pick_device
from cssta.config import PRESETS, ModelConfig
from cssta.engine import Inpainter
from cssta.inpainting import InpaintingNetwork
from cssta.masks import freeform_masks
from cssta.temporal import TemporalNetwork

SIZES = ("256x256", "432x240", "864x480", "1280x720")


@dataclass(frozen=True)
class Row:
    """One measurement; `gflops` and `seconds` are per frame of the clip."""

    method: str
    size: str
    frames: int
    gflops: float
    seconds: float
    peak_mib: float


def clip(frames: int, height: int, width: int, hole: float) -> tuple[np.ndarray, np.ndarray]:
    """Noise that drifts, with drifting free-form holes: cost does not depend on content."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (height, width + frames, 3), dtype=np.uint8)
    video = np.stack([wide[:, t : t + width] for t in range(frames)])
    masks = freeform_masks(rng, frames, height, width, ratio=(hole, hole), moving=True)
    return video, masks


def build(method: str, model: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`cssta`, `dense` (the same by unfolded patches), or a peer as `module:function`."""
    if ":" in method:
        module, function = method.split(":")
        return getattr(importlib.import_module(module), function)
    if model in PRESETS:
        config = ModelConfig.preset(model)
        networks = Model(config, InpaintingNetwork(config), TemporalNetwork(config))
        inpainter = Inpainter(networks, pick_device(None))
    else:
        inpainter = Inpainter.load(None if model == "default" else model)
    if method == "dense":
        inpainter.network.refinement.attention.unfold = True
    elif method == "cssta":
        inpainter.network.refinement.attention.unfold = False
    return inpainter.inpaint


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of a call; a multiply-add is two."""
    # The counter does not know the CPU's fused attention, and would count it as free.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={fused: _attention_flops}) as counter:
        call()
    return counter.get_total_flops()


def _attention_flops(query, key, value, *_, **__) -> int:
    """Both products, from shapes (batch, heads, length, channels)."""
    batch, heads, queries, channels = query
    return 2 * batch * heads * queries * key[2] * (channels + value[3])


def measure(method: str, size: str, frames: int, hole: float, model: str) -> Row:
    """Run one clip twice in this process: once counting, once timed."""
    width, height = (int(side) for side in size.split("x"))
    video, masks = clip(frames, height, width, hole)
    complete = build(method, model)
    gflops = count_flops(lambda: complete(video, masks)) / frames / 1e9
    started = time.perf_counter()
    complete(video, masks)
    seconds = (time.perf_counter() - started) / frames
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return Row(method, size, frames, gflops, seconds, peak)


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table row by row and write JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["cssta", "dense"])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--hole", type=float, default=0.15, help="the hole's share of a frame")
    parser.add_argument("--model", default="default", help=f"folder, default, {', '.join(PRESETS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.one:
        row = measure(
            options.methods[0], options.sizes[0], options.frames, options.hole, options.model
        )
        print(json.dumps(asdict(row)))
        return
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(
        f"torch {torch.__version__}, {machine or platform.machine()}, {options.threads} threads, "
    )
    print(f"model {options.model}, {options.hole:.0%} hole, {options.frames} frames\n")
    print("| method | size | GFLOPs per frame | s per frame | frames per s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for row in _rows(options):
        rows.append(asdict(row))
        print(
            f"| {row.method} | {row.size} | {row.gflops:.1f} | {row.seconds:.3f} "
            f"| {1 / row.seconds:.2f} | {row.peak_mib:.0f} |",
            flush=True,
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    keep = ["--frames", "--hole", "--model", "--threads"]
    shared = [part for key in keep for part in (key, str(getattr(options, key[2:])))]
    for size in options.sizes:
        for method in options.methods:
            command = [sys.executable, "-m", "cssta.benchmark", "--one", "--methods", method]
            result = subprocess.run(
                [*command, "--sizes", size, *shared], stdout=subprocess.PIPE, text=True, check=True
            )
            yield Row(**json.loads(result.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
