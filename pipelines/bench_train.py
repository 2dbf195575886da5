"""What Ray Train costs a training stage: its steps per second over those of a bare PyTorch loop.

    python -m pipelines.bench_train --rounds 8

Both train the same network on the same clips in memory, in processes of their own, in turns: so
many steps of the one, then of the other, so that a busy machine slows both. The stage does all that
it does in a job (reports, MLflow, skipping, averaging); checkpoints, which come every few hundred
steps, are timed apart. FLOPs are counted by PyTorch over one step, forward and backward.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cssta.config import ModelConfig
from cssta.losses import LossWeights
from cssta.masks import freeform_masks
from cssta.training import seed_step
from pipelines.checkpoints import Checkpoints
from pipelines.config import InpainterStageConfig, JobConfig
from pipelines.train_loop import StageTask, build_stage

CLIPS = 4  # in memory, over and over
GOAL = 0.95
# Dense bfloat16 matrix TFLOP/s from the makers' data sheets, by a part of CUDA's device name.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40": 362, "L4": 121, "A10G": 70, "4090": 165}


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    if options.bare:
        return bare_turns(options)
    print(f"{_device()}: inpainter {options.size}, {options.side}x{options.side}, "
          f"{options.frames} frames, {options.batch} clips per step")  # fmt: skip
    for precision in options.precisions.split(","):
        try:
            print(speed(options, precision), flush=True)
        except RuntimeError as error:  # (a compiler's, or memory that is too small: others may go)
            print(f"{precision}: failed: {str(error).strip().splitlines()[0]}", flush=True)
    stage, bare, kept = compare(options, arguments)
    ratios = [b / s for s, b in zip(stage, bare, strict=True)]
    per_turn = options.steps
    print(
        f"steps per second: Ray Train {per_turn / median(stage):.2f}, "
        f"bare loop {per_turn / median(bare):.2f}; over each other by turns: median "
        f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), goal {GOAL}"
    )
    print(f"a checkpoint takes {kept:.2f} s, which is not in the above")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--rounds", type=int, default=8, help="turns of each (default: 8)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn (default: 20)")
    parser.add_argument("--size", default="base" if cuda else "small")
    parser.add_argument("--side", type=int, default=256 if cuda else 96, help="pixels")
    parser.add_argument("--frames", type=int, default=7 if cuda else 4)
    parser.add_argument("--batch", type=int, default=1)
    listed = "float32,bfloat16,bfloat16+compile" if cuda else "float32"
    parser.add_argument("--precisions", default=listed, help="of which TFLOP/s are printed")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser


def make_task(
    options: argparse.Namespace, storage: str, steps: int, precision: str = ""
) -> StageTask:
    """The inpainter's stage, from random weights, with `steps` steps."""
    name, _, compiled = precision.partition("+")
    mixed = {"float32": False, "bfloat16": True}.get(name)
    section = InpainterStageConfig(
        steps=steps,
        batch_size=options.batch,
        log_every=10,
        checkpoint_every=steps,
        validate_every=steps,
        mixed_precision=mixed,
        compile=compiled == "compile",
    )
    data = {"videos": "memory", "height": options.side, "width": options.side}
    cfg = JobConfig.parse({"data": data | {"references": options.frames - 1}})
    model = ModelConfig.preset(options.size)
    store = Checkpoints(f"{storage}/checkpoints")
    return StageTask("inpainter", model, section, LossWeights(), cfg.data, 0, 1, {}, (), store)


def clips(task: StageTask) -> list[dict[str, np.ndarray]]:
    """Batches of noise with drawn holes."""
    rng = np.random.default_rng(0)
    size, data = task.stage.batch_size, task.data
    shape = (data.references + 1, data.height, data.width)
    return [
        {
            "frames": rng.integers(0, 256, (size, *shape, 3), np.uint8),
            "masks": np.stack([freeform_masks(rng, *shape, ratio=(0.1, 0.2)) for _ in range(size)]),
        }
        for _ in range(CLIPS)
    ]


class BareLoop:
    """The stage without Ray: batch, step, batch, step."""

    def __init__(self, task: StageTask) -> None:
        torch.set_num_threads(task.threads)
        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stage = build_stage(task, device, lambda network: network)
        self.batches = itertools.cycle(clips(task))

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        started = time.perf_counter()
        for _ in range(steps):
            seed_step(0, self.stage.steps)
            self.stage.step(next(self.batches))  # (reads the loss: the device is waited for)
        return time.perf_counter() - started


def speed(options: argparse.Namespace, precision: str) -> str:
    """A bare loop's steps per second and FLOP/s, in this process."""
    from torch.utils.flop_counter import FlopCounterMode

    task = make_task(options, "/nowhere", 1, precision.partition("+")[0])
    with FlopCounterMode(display=False) as counter:  # (does not see into compiled parts)
        BareLoop(task).run(1)
    loop = BareLoop(make_task(options, "/nowhere", 1, precision))
    loop.run(3)  # (warm, and compiled)
    seconds = loop.run(options.steps) / options.steps
    rate = counter.get_total_flops() / seconds / 1e12
    peak = next((peak for name, peak in PEAKS.items() if name in _device()), None)
    share = f", {rate / peak:.1%} of the bfloat16 peak of {peak}" if peak else ""
    return (
        f"{precision}: {1 / seconds:.2f} steps/s, {counter.get_total_flops() / 1e9:.3g} GFLOPs per "
        f"step, {rate:.3f} TFLOP/s{share}"
    )


def bare_turns(options: argparse.Namespace) -> int:
    """Runs a turn for every line on standard input, and prints its seconds."""
    loop = BareLoop(make_task(options, "/nowhere", 1))
    loop.run(options.steps)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(loop.run(options.steps), flush=True)
    return 0


def compare(
    options: argparse.Namespace, arguments: list[str]
) -> tuple[list[float], list[float], float]:
    """Seconds per turn of stage and bare loop, in turns; seconds of a checkpoint."""
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    from pipelines.tracking import JobRun
    from pipelines.train_stage import StageLog

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    started_here = not ray.is_initialized()
    if started_here:
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        ray.init(address="local", num_cpus=2, **quiet)
    results: list[list[float]] = [[], []]
    try:
        with tempfile.TemporaryDirectory(prefix="cssta-bench-") as folder:
            steps = (options.rounds + 2) * options.steps
            task = make_task(options, folder, steps)
            turns = ray.remote(num_cpus=0)(_Turns).remote()
            cfg = JobConfig.parse({"data": {"videos": "memory"}, "cluster": {"storage": folder}})
            trainer = TorchTrainer(
                _worker,
                train_loop_config={"task": task, "turns": turns, "steps": options.steps},
                scaling_config=ray.train.ScalingConfig(use_gpu=torch.cuda.is_available()),
                run_config=ray.train.RunConfig(
                    name="bench",
                    storage_path=f"{folder}/ray",
                    callbacks=[StageLog(JobRun.start(cfg).stage("bench"), task, Silence())],
                ),
            )
            command = [sys.executable, "-m", "pipelines.bench_train", "--bare", *arguments]
            taking = threading.Thread(target=_take_turns, args=(options, command, turns, *results))
            taking.start()
            trainer.fit()
            taking.join()
            return *results, _time_checkpoint(task, folder)
    finally:
        if started_here:
            ray.shutdown()


class Silence:
    """Stands for the job's output."""

    def say(self, line: str) -> None:
        """Nothing."""


def _worker(config: dict) -> str | None:
    from pipelines import train_loop

    task = config["task"]
    train_loop.worker_batches = lambda task, done: _in_turns(task, config["turns"], config["steps"])
    return train_loop.train_worker({"task": task})


def _in_turns(task: StageTask, turns, steps: int) -> Iterator[dict[str, np.ndarray]]:
    import ray

    for number, batch in enumerate(itertools.cycle(clips(task))):
        if number % steps == 0:
            ray.get(turns.next.remote())
        yield batch


class _Turns:
    """Lets the stage go for a turn, and tells how long the turn took."""

    def __init__(self) -> None:
        self._go, self._ended = asyncio.Event(), asyncio.Event()

    async def next(self) -> None:
        """The stage: a turn has ended, or it has come up."""
        self._ended.set()
        await self._go.wait()
        self._go.clear()

    async def run(self) -> float:
        """The driver: seconds of a turn."""
        await self._ended.wait()
        self._ended.clear()
        started = time.perf_counter()
        self._go.set()
        await self._ended.wait()
        return time.perf_counter() - started

    async def finish(self) -> None:
        """The last turn, whose end is the stage's."""
        self._go.set()


def _take_turns(
    options: argparse.Namespace, command: list[str], turns, stage: list[float], bare: list[float]
) -> None:
    import ray

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as loop:
        assert loop.stdout.readline() == "ready\n"
        ray.get(turns.run.remote())  # (warm)
        for number in range(options.rounds):
            for which in ("stage", "bare") if number % 2 else ("bare", "stage"):
                if which == "stage":
                    stage.append(ray.get(turns.run.remote()))
                else:
                    print("go", file=loop.stdin, flush=True)
                    bare.append(json.loads(loop.stdout.readline()))
        loop.stdin.close()
    ray.get(turns.finish.remote())


def _time_checkpoint(task: StageTask, folder: str) -> float:
    loop = BareLoop(task)
    loop.run(1)
    local = Path(folder) / "saved"
    started = time.perf_counter()
    loop.stage.save(local)
    task.checkpoints.save(local, 1, {})
    return time.perf_counter() - started


def _device() -> str:
    from cssta.evaluation.provenance import cpu_name

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


if __name__ == "__main__":
    sys.exit(main())
