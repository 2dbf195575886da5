"""What a training step costs per target frame: FLOPs, seconds, memory, with checkpointing or not.

Beside it, what completing that frame costs, from the same references.

A step is the inpainter's: every frame of a clip is encoded once and is a target, with the others as
its references; forward, backward, the feature teacher, and the discriminator with the GAN loss.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from cssta.benchmark import clip
from cssta.checkpoint import pick_device
from cssta.config import PRESETS, ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.measure import PeakMemory, alone, count_flops, machine, timed
from cssta.training import InpainterStage, Settings
from cssta.training.batches import to_network


def measure(case: dict) -> dict:
    """Three steps on one clip: the first unwatched, one timed and watched, one counted."""
    torch.set_num_threads(case["threads"])
    config = ModelConfig.preset(case["model"])
    settings = Settings(
        checkpointing=case["checkpointing"],
        mixed_precision=case["bfloat16"] or None,
        unfold=case["bfloat16"] and not torch.cuda.is_available(),
        entropy_every=0,
    )
    device = pick_device(None)
    teacher, network = Im2Im(config), InpaintingNetwork(config)
    stage = InpainterStage(config, network, settings, LossWeights(), device, teacher=teacher)
    frames, masks = clip(case["frames"], case["crop"], case["crop"], case["hole"])
    batch = {"frames": frames[None], "masks": masks[None]}
    stage.step(batch)
    with PeakMemory() as memory:
        wall, cpu = timed(lambda: stage.step(batch))
    flops = count_flops(lambda: stage.step(batch)) / 1e9
    targets = case["frames"]
    inputs = to_network(batch, device)
    with torch.inference_mode():
        inference = count_flops(lambda: network(*inputs, targets)) / 1e9
    return case | {
        "gflops": flops / targets,
        "inference_gflops": inference / targets,
        "seconds": wall / targets,
        "cpu_seconds": cpu / targets,
        "peak_mib": memory.bytes / 2**20,
        "rise_mib": memory.rise / 2**20,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table and write JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes-of-model", nargs="+", default=["small", "base", "large"])
    parser.add_argument("--frames", type=int, default=7, help="of the clip: a target and six")
    parser.add_argument("--crop", type=int, default=256, help="side of the square crop, pixels")
    parser.add_argument("--hole", type=float, default=0.15, help="the hole's share of a frame")
    parser.add_argument("--bfloat16", action="store_true", help="also on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/bench-training.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    unknown = set(options.sizes_of_model) - set(PRESETS)
    if unknown:
        parser.error(f"no model size {unknown.pop()!r}; known: {', '.join(PRESETS)}")
    shared = {
        key: getattr(options, key) for key in ("frames", "crop", "hole", "bfloat16", "threads")
    }
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(", ".join(f"{key} {value}" for key, value in shared.items()), end="\n\n")
    print(
        "| model | checkpointing | GFLOPs per target | to complete it | s | CPU s | peak MiB "
        "| of it for the step |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for model in options.sizes_of_model:
        for checkpointing in (False, True):
            case = {"model": model, "checkpointing": checkpointing, **shared}
            row = alone("cssta.benchmark_training", case)
            rows.append(row)
            print(
                f"| {model} | {'yes' if checkpointing else 'no'} | {row['gflops']:.1f} "
                f"| {row['inference_gflops']:.1f} | {row['seconds']:.3f} "
                f"| {row['cpu_seconds']:.3f} | {row['peak_mib']:.0f} | {row['rise_mib']:.0f} |",
                flush=True,
            )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
