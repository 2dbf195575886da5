"""Memory and time of the attention from few references to many, which must not cost memory.

References are features in half precision in a file that is mapped into memory, as a bank larger
than RAM would be. Every case is a process of its own; its anonymous memory is watched, beyond what
it had before the call.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from cssta.attention import SCORE_BUDGET, CSSTALayer
from cssta.backbone import feature_mask
from cssta.benchmark import clip
from cssta.measure import PeakMemory, alone, machine, timed

PATHS = ("diagonal", "unfold", "training")


def measure(case: dict) -> dict:
    """One target's attention; `training`: by diagonals, with its backward pass."""
    torch.set_num_threads(case["threads"])
    width, height = (int(side) for side in case["size"].split("x"))
    count, channels = case["references"], case["channels"]
    _, masks = clip(4, height, width, case["hole"])
    holes = feature_mask(torch.from_numpy(masks)[:, None].float()) > 0.5
    shape = (channels, *holes.shape[2:])
    layer = CSSTALayer(30.0)
    layer.unfold = case["path"] == "unfold"
    training = case["path"] == "training"
    with tempfile.TemporaryDirectory() as folder:
        bank = _bank(Path(folder) / "bank", (count, *shape))
        numbers = torch.arange(count) % len(holes)
        targets = torch.randn(1, *shape).requires_grad_(training)

        def attend() -> None:
            with torch.set_grad_enabled(training):
                inputs = (targets, bank, holes[:1], holes[numbers], None, case["budget"])
                result, _ = layer(*inputs)
                if training:
                    result.sum().backward()

        with PeakMemory() as memory:
            wall, cpu = timed(attend)
    total, rise = memory.bytes / 2**20, memory.rise / 2**20
    return case | {"seconds": wall, "cpu_seconds": cpu, "peak_mib": total, "rise_mib": rise}


def _bank(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """Features (R, C, h, w) of random numbers, bfloat16, mapped from a file."""
    size = torch.Size(shape).numel()
    bank = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).view(shape)
    for reference in bank:
        reference.copy_(torch.randn(shape[1:]))
    return bank


def main(arguments: list[str] | None = None) -> None:
    """Print a Markdown table and write JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=int, nargs="+", default=[6, 60, 600])
    parser.add_argument("--paths", nargs="+", default=PATHS, choices=PATHS)
    parser.add_argument("--size", default="432x240", metavar="WIDTHxHEIGHT")
    parser.add_argument("--hole", type=float, default=0.15, help="the hole's share of a frame")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--budget", type=int, default=SCORE_BUDGET, help="bytes for scores")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("runs/bench-attention.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    keys = ("size", "hole", "channels", "budget", "threads")
    shared = {key: getattr(options, key) for key in keys}
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(", ".join(f"{key} {value}" for key, value in shared.items()), end="\n\n")
    print("| attention | references | s | CPU s | peak MiB | of it for the call |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for path in options.paths:
        for count in options.references:
            row = alone("cssta.benchmark_attention", {"path": path, "references": count, **shared})
            rows.append(row)
            print(
                f"| {path} | {count} | {row['seconds']:.2f} | {row['cpu_seconds']:.2f} "
                f"| {row['peak_mib']:.0f} | {row['rise_mib']:.0f} |",
                flush=True,
            )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
