"""What the training stream costs beside its work.

    python -m pipelines.bench_data [--videos FOLDER] [--clips 1024] [--cores 2]

opens    how much one open for several clips spares, and what a clip costs far into a long video;
rate     clips per second of the Ray Data stream over a bare loop of decord and masks in as many
         processes as the stream has cores, in turns; and the stream from a folder that
         jobs/prepare.py wrote, over that from the videos;
masks    the stream over the bare loop with object masks, and with half of them free-form;
memory   the object store's peak while a bucket is streamed whose files are larger than it, and
         what was spilled;
waiting  the share of time that a trainer waits for data.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from cssta.measure import machine
from pipelines.bench_footage import bucket, larger_bucket, object_masks, plan_of
from pipelines.clip_loading import clip_masks, cover_and_crop, load_clips
from pipelines.clip_plan import CLIPS_PER_OPEN, ClipPlan, ClipRow
from pipelines.config import DataConfig, JobConfig
from pipelines.footage import find_footage
from pipelines.manifest import Manifest
from pipelines.prepare import prepare

WARM_UP = 64  # clips per core, which are not counted
PARTS = ("opens", "rate", "masks", "memory", "waiting")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="default: textures that drift, as many written")
    parser.add_argument("--clips", type=int, default=1024, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=256, help="of a clip's frames; 7 of them")
    parser.add_argument("--store", type=int, default=100, help="MiB, to be streamed through")
    parser.add_argument("--long", type=int, default=1500, help="frames of the long video")
    parser.add_argument("--stage", choices=("im2im", "inpainter"), default="im2im")
    parser.add_argument("--steps", type=int, default=60, help="of the stage that may wait")
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all parts")
    options = parser.parse_args(argv)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    parts = options.only or PARTS
    found: dict[str, object] = {"machine": machine()["device"], "cores": options.cores}
    with tempfile.TemporaryDirectory(prefix="cssta-bench-") as name:
        scratch = Path(name)
        folder = options.videos or bucket(scratch / "videos")
        plan = plan_of(folder, options.size, options.clips)
        show("footage", plan.manifest.describe())
        if "opens" in parts:
            found |= opens(plan, scratch, options.long)
        if "rate" in parts or "masks" in parts:
            with cluster(options.cores):
                if "rate" in parts:
                    found |= rates(plan, scratch / "prepared", options)
                if "masks" in parts:
                    found |= mask_rates(folder, object_masks(scratch / "masks"), options)
        if "memory" in parts:
            store = options.store * 2**20
            large = larger_bucket(folder, scratch / "large", store * 5 // 4)
            with cluster(options.cores, store):
                found |= memory(plan_of(large, options.size, options.clips), options.clips, store)
        if "waiting" in parts:
            with cluster(options.cores):
                found |= waiting(folder, scratch, options.steps, options.stage)
    print(json.dumps(found))
    return 0


def show(label: str, text: str) -> None:
    print(f"{label:36} {text}", flush=True)


@contextmanager
def cluster(cores: int, store: int = 10**9) -> Iterator[None]:
    """Ray on this machine, with `cores` CPUs and an object store of `store` bytes."""
    import ray

    search = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}}
    started = time.monotonic()
    ray.init(
        address="local", num_cpus=cores, log_to_driver=False, logging_level="ERROR",
        runtime_env=search, include_dashboard=False, object_store_memory=store,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    for name in ("execution.streaming_executor", "progress"):
        logging.getLogger(f"ray.data._internal.{name}").setLevel(logging.ERROR)
    show("start of Ray", f"{time.monotonic() - started:.1f} s")
    try:
        yield
    finally:
        ray.shutdown()


def rates(plan: ClipPlan, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Clips per second, bare, streamed, and streamed from a prepared folder, in turns."""
    started = time.monotonic()
    prepare(plan.cfg, str(folder), say=lambda line: None)
    show("preparing the videos", f"{time.monotonic() - started:.0f} s")
    size = sum(file.stat().st_size for file in folder.iterdir())
    show("prepared folder", f"{size / 2**20:.0f} MiB")
    ready = plan.cfg.model_copy(update={"prepared": str(folder)})
    prepared = ClipPlan(find_footage(ready), ready, plan.seed)
    streams = {"streamed": plan, "from_prepared": prepared}
    found = in_turns(plan, streams, options.clips, options.rounds, options.cores)
    for name, rate in found.items():
        show(name.replace("_", " "), f"{median(rate):.1f} clips/s")
    ratios = {}
    for one, other in (("streamed", "bare"), ("from_prepared", "streamed")):
        ratio = median(a / b for a, b in zip(found[one], found[other], strict=True))
        ratios[f"{one}_over_{other}"] = ratio
        show(f"{one} over {other}".replace("_", " "), f"{ratio:.2f}")
    return found | ratios


def mask_rates(folder: Path, objects: Path, options: argparse.Namespace) -> dict[str, object]:
    """The stream over the bare loop with masks of the other kinds, half as many clips of each."""
    ratios = {}
    for kind in ("objects", "mixed"):
        clips = max(options.clips // 2, 1)
        plan = plan_of(folder, options.size, clips, kind, objects)
        found = in_turns(plan, {"streamed": plan}, clips, options.rounds, options.cores)
        ratio = median(a / b for a, b in zip(found["streamed"], found["bare"], strict=True))
        show(f"streamed over bare, masks {kind}", f"{ratio:.2f}")
        ratios[f"streamed_over_bare_{kind}"] = ratio
    return ratios


def in_turns(
    plan: ClipPlan, streams: dict[str, ClipPlan], clips: int, rounds: int, cores: int
) -> dict[str, list[float]]:
    """Clips per second of every round, of the bare loop over `plan` and of each stream."""
    found: dict[str, list[float]] = {"bare": []} | {name: [] for name in streams}
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(bare_loop, [plan.rows(0, 8)] * cores, [plan.cfg] * cores))
        drain(plan, 0, WARM_UP * cores)  # (processes start and import)
        for turn in range(rounds):
            start, stop = turn * clips, (turn + 1) * clips
            rows = plan.rows(start, stop)
            shares = [rows[core::cores] for core in range(cores)]
            started = time.monotonic()
            list(pool.map(bare_loop, shares, [plan.cfg] * cores))
            found["bare"].append(clips / (time.monotonic() - started))
            for name, stream in streams.items():
                found[name].append(clips / drain(stream, start, stop))
    return found


def bare_loop(rows: list[ClipRow], cfg: DataConfig) -> None:
    """What anybody would write: open, pick the frames, scale, draw masks; clip after clip."""
    import torch  # noqa: F401  (first: decord brings an older OpenMP)
    from decord import VideoReader

    cv2.setNumThreads(1)
    for row in rows:
        reader = VideoReader(row.uri, num_threads=1)
        frames = reader.get_batch(list(row.indices)).asnumpy()
        frames = cover_and_crop(frames, cfg.height, cfg.width, row.crop_y, row.crop_x)
        if row.flip:
            frames = np.ascontiguousarray(frames[:, :, ::-1])
        clip_masks(row, cfg)


def drain(plan: ClipPlan, start: int, stop: int) -> float:
    """Seconds of a consumer who does nothing with the clips, the stream's start included."""
    from pipelines.data import clip_stream

    started = time.monotonic()
    stream = clip_stream(plan, start, stop)
    for batch in stream.iter_batches(batch_size=4, prefetch_batches=2, batch_format="numpy"):
        batch["frames"].shape  # noqa: B018
    return time.monotonic() - started


def opens(plan: ClipPlan, scratch: Path, frames: int) -> dict[str, object]:
    """Seconds per clip with an open for each, and for CLIPS_PER_OPEN; early and late in a video."""
    cv2.setNumThreads(1)
    rows = plan.rows(0, min(256, plan.cfg.clips_per_epoch))
    together = timed(lambda: list(load_clips(rows, plan.cfg)))
    apart = timed(lambda: [list(load_clips([row], plan.cfg)) for row in rows])
    show(f"{CLIPS_PER_OPEN} clips per open", f"{apart / together:.2f} times as fast as one")
    long = bucket(scratch / "long", videos=1, frames=frames) / "0.mp4"
    seconds = {}
    for name, first in (("early", 0), ("late", frames - 10)):
        row = ClipRow(0, str(long), tuple(range(first, first + 7)), False, 0.5, 0.5, 1, None)
        seconds[name] = median(
            timed(lambda row=row: list(load_clips([row], plan.cfg))) for _ in range(9)
        )
    text = f"{seconds['late'] / seconds['early']:.2f} times what one at frame 0 takes"
    show(f"a clip at frame {frames - 10} of {frames}", text)
    return {
        "one_open_speedup": apart / together,
        "late_over_early": seconds["late"] / seconds["early"],
    }


def timed(call) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def memory(plan: ClipPlan, clips: int, store: int) -> dict[str, object]:
    """Peak of an object store of `store` bytes, and bytes spilled; the consumer is the slower."""
    from pipelines.data import clip_stream

    share = clips * (plan.cfg.references + 1) * plan.cfg.height * plan.cfg.width * 4
    peak = 0
    stream = clip_stream(plan, 0, clips)
    for number, batch in enumerate(stream.iter_batches(batch_size=4, prefetch_batches=2)):
        del batch
        if number % 8 == 0:
            time.sleep(0.2)
            peak = max(peak, store_stats().object_store_bytes_used)
    spilled = (stats := store_stats()).spilled_bytes_total + stats.object_store_bytes_fallback
    files = sum(Path(video.uri).stat().st_size for video in plan.manifest.videos)
    show("bucket", f"{files / 2**20:.0f} MiB in {len(plan.manifest.videos)} files")
    show("streamed through the object store", f"{share / 2**20:.0f} MiB")
    show("object store", f"{store / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB")
    show("spilled", f"{spilled / 2**20:.0f} MiB")
    return {
        "bucket_bytes": files,
        "streamed_bytes": share,
        "store_peak_bytes": peak,
        "spilled_bytes": spilled,
    }


def store_stats():
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return get_memory_info_reply(state).store_stats


def waiting(folder: Path, scratch: Path, steps: int, name: str) -> dict[str, object]:
    """Share of time that a stage of `steps` steps waits for data, after its first report."""
    from cssta.config import ModelConfig
    from pipelines.train_stage import Videos, train_stage

    every = max(steps // 4, 1)
    stage = {"steps": steps, "log_every": every, "validate_every": steps, "ema": 0}
    cfg = JobConfig.parse(
        {
            "data": {"videos": str(folder), "height": 128, "width": 128, "references": 4},
            "model": {"size": "small"},
            "stages": {name: stage | {"checkpoint_every": steps}},
            "cluster": {"storage": str(scratch / "runs"), "use_gpu": "auto"},
        }
    )
    shares: list[float] = []

    def say(line: str) -> None:
        words = line.split()
        if "data_wait_share" in words:
            shares.append(float(words[words.index("data_wait_share") + 1]))

    videos = Videos(find_footage(cfg.data), Manifest(()))
    train_stage(cfg, name, ModelConfig.preset("small"), {}, videos, _NoRun(), say)
    share = float(np.mean(shares[1:] or shares))
    text = f"{100 * share:.1f} % of the time ({100 * shares[0]:.1f} % at first)"
    show(f"{name} waits for data", text)
    return {"wait_share": share, "wait_share_at_first": shares[0]}


class _NoRun:
    """Stands for an MLflow run, whose reports nobody reads here."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _ignore


def _ignore(*_args: object, **_options: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
