"""What the training stream costs beside its work.

    python -m pipelines.bench_data [--videos FOLDER] [--clips 1024] [--cores 2]

1. clips per second of the Ray Data stream over a bare loop of decord and masks in as many
   processes as the stream has cores, in turns;
2. the stream from a folder that jobs/prepare.py wrote, over that from the videos;
3. how much one open for several clips spares, and what a clip costs far into a long video;
4. the object store's peak while far more than it holds is streamed, and what was spilled;
5. the share of time that a trainer waits for data.
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

from cssta.masks import freeform_masks
from cssta.measure import machine
from cssta.video import write_video
from pipelines.clip_loading import cover_and_crop, load_clips
from pipelines.clip_plan import CLIPS_PER_OPEN, ClipPlan, ClipRow
from pipelines.config import DataConfig, JobConfig
from pipelines.footage import find_footage
from pipelines.manifest import Manifest, probe_video
from pipelines.prepare import prepare
from pipelines.storage import list_videos

PARTS = ("opens", "rate", "memory", "waiting")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="default: textures that drift, as many written")
    parser.add_argument("--clips", type=int, default=1024, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=256, help="of a clip's frames; 7 of them")
    parser.add_argument("--store", type=int, default=100, help="MiB, to be streamed through")
    parser.add_argument("--steps", type=int, default=60, help="of the training that may wait")
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all parts")
    options = parser.parse_args(argv)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    parts = options.only or PARTS
    found: dict[str, object] = {"machine": machine()["device"], "cores": options.cores}
    with tempfile.TemporaryDirectory(prefix="cssta-bench-") as name:
        folder = options.videos or bucket(Path(name) / "videos")
        plan = plan_of(folder, options.size, options.clips)
        frames = sum(video.frames for video in plan.manifest.videos)
        show("footage", f"{len(plan.manifest.videos)} videos, {frames} frames")
        if "opens" in parts:
            found |= opens(plan, Path(name))
        if "rate" in parts:
            with cluster(options.cores):
                found |= rates(plan, Path(name) / "prepared", options)
        if "memory" in parts:
            with cluster(options.cores, options.store * 2**20):
                found |= memory(plan, options.clips, options.store * 2**20)
        if "waiting" in parts:
            with cluster(options.cores):
                found |= waiting(folder, Path(name), options.steps)
    print(json.dumps(found))
    return 0


def show(label: str, text: str) -> None:
    print(f"{label:36} {text}", flush=True)


def bucket(folder: Path, videos: int = 12, frames: int = 96) -> Path:
    """Videos, 288 x 512, of a texture that drifts."""
    rng = np.random.default_rng(0)
    for number in range(videos):
        noise = rng.integers(0, 255, (37, 2 * frames, 3), np.uint8)
        wide = cv2.resize(noise, (512 + 2 * frames, 288), interpolation=cv2.INTER_CUBIC)
        views = [wide[:, 2 * frame : 2 * frame + 512] for frame in range(frames)]
        write_video(folder / f"{number}.mp4", np.stack(views), 24)
    return folder


def plan_of(folder: Path, size: int, clips: int) -> ClipPlan:
    cfg = DataConfig(videos=str(folder), height=size, width=size, clips_per_epoch=clips)
    found = [probe_video(video.uri) for video in list_videos(str(folder))]
    return ClipPlan(Manifest(tuple(row for row in found if hasattr(row, "frames"))), cfg, 0)


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
    found: dict[str, list[float]] = {"bare": [], "streamed": [], "from_prepared": []}
    spawn = get_context("spawn")
    with ProcessPoolExecutor(options.cores, mp_context=spawn) as pool:
        list(pool.map(bare_loop, [plan.rows(0, 8)] * options.cores, [plan.cfg] * options.cores))
        drain(plan, 0, 64 * options.cores)  # (processes start and import)
        for turn in range(options.rounds):
            start, stop = turn * options.clips, (turn + 1) * options.clips
            rows = plan.rows(start, stop)
            shares = [rows[core :: options.cores] for core in range(options.cores)]
            started = time.monotonic()
            list(pool.map(bare_loop, shares, [plan.cfg] * len(shares)))
            found["bare"].append(options.clips / (time.monotonic() - started))
            found["streamed"].append(options.clips / drain(plan, start, stop))
            found["from_prepared"].append(options.clips / drain(prepared, start, stop))
    for name, rate in found.items():
        show(name.replace("_", " "), f"{median(rate):.1f} clips/s")
    ratios = {}
    for one, other in (("streamed", "bare"), ("from_prepared", "streamed")):
        ratio = median(a / b for a, b in zip(found[one], found[other], strict=True))
        ratios[f"{one}_over_{other}"] = ratio
        show(f"{one} over {other}".replace("_", " "), f"{ratio:.2f}")
    return found | ratios


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
        rng = np.random.default_rng(row.mask_seed)
        freeform_masks(rng, len(row.indices), cfg.height, cfg.width, ratio=cfg.masks.ratio)


def drain(plan: ClipPlan, start: int, stop: int) -> float:
    """Seconds of a consumer who does nothing with the clips, the stream's start included."""
    from pipelines.data import clip_stream

    started = time.monotonic()
    stream = clip_stream(plan, start, stop)
    for batch in stream.iter_batches(batch_size=4, prefetch_batches=2, batch_format="numpy"):
        batch["frames"].shape  # noqa: B018
    return time.monotonic() - started


def opens(plan: ClipPlan, scratch: Path) -> dict[str, object]:
    """Seconds per clip with an open for each, and for CLIPS_PER_OPEN; early and late in a video."""
    cv2.setNumThreads(1)
    rows = plan.rows(0, 256)
    together = timed(lambda: list(load_clips(rows, plan.cfg)))
    apart = timed(lambda: [list(load_clips([row], plan.cfg)) for row in rows])
    show(f"{CLIPS_PER_OPEN} clips per open", f"{apart / together:.2f} times as fast as one")
    long = bucket(scratch / "long", videos=1, frames=1500) / "0.mp4"
    seconds = {}
    for name, first in (("early", 0), ("late", 1490)):
        row = ClipRow(0, str(long), tuple(range(first, first + 7)), False, 0.5, 0.5, 1, None)
        seconds[name] = median(
            timed(lambda row=row: list(load_clips([row], plan.cfg))) for _ in range(9)
        )
    text = f"{seconds['late'] / seconds['early']:.2f} times what one at frame 0 takes"
    show("a clip at frame 1490 of 1500", text)
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
    stats = store_stats()
    spilled = stats.spilled_bytes_total + stats.object_store_bytes_fallback
    show("streamed through the object store", f"{share / 2**20:.0f} MiB")
    show("object store", f"{store / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB")
    show("spilled", f"{spilled / 2**20:.0f} MiB")
    return {"streamed_bytes": share, "store_peak_bytes": peak, "spilled_bytes": spilled}


def store_stats():
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return get_memory_info_reply(state).store_stats


def waiting(folder: Path, scratch: Path, steps: int) -> dict[str, object]:
    """Share of time that a stage of `steps` steps waits for data, after its first report."""
    from cssta.config import ModelConfig
    from pipelines.train_stage import Videos, train_stage

    every = max(steps // 4, 1)
    stage = {"steps": steps, "log_every": every, "validate_every": steps, "ema": 0}
    cfg = JobConfig.parse(
        {
            "data": {"videos": str(folder), "height": 128, "width": 128, "references": 4},
            "model": {"size": "small"},
            "stages": {"im2im": stage | {"checkpoint_every": steps}},
            "cluster": {"storage": str(scratch / "runs"), "use_gpu": "auto"},
        }
    )
    shares: list[float] = []

    def say(line: str) -> None:
        words = line.split()
        if "data_wait_share" in words:
            shares.append(float(words[words.index("data_wait_share") + 1]))

    videos = Videos(find_footage(cfg.data), Manifest(()))
    train_stage(cfg, "im2im", ModelConfig.preset("small"), {}, videos, _NoRun(), say)
    share = float(np.mean(shares[1:] or shares))
    show(
        "trainer waits for data",
        f"{100 * share:.1f} % of the time ({100 * shares[0]:.1f} % at first)",
    )
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
