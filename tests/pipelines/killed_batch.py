"""The batch that is killed: its videos, its configuration, and what becomes of it in peace."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from cssta.video import write_video
from pipelines import storage
from pipelines.batch import batch_settings, pin_model
from pipelines.batch_plan import plan_batch
from pipelines.batch_publish import publish_results
from pipelines.config import JobConfig
from pipelines.retries import patiently
from tests.pipelines.one_process import complete_one

ACTORS = 2
LENGTHS = {"long": 120, "a b": 20, "c#1": 12, "d%20": 15, "sub/é": 9}  # frames of each video
SEGMENT = 12
SEGMENTS = {name: -(-frames // SEGMENT) for name, frames in LENGTHS.items()}


def write_inputs(folder: Path, bucket: str = "", endpoint: str = "") -> None:
    """A video of ten segments, four of one or two, and a model folder.

    `bucket`: URI that the videos are put at too.
    """
    for number, (name, frames) in enumerate(LENGTHS.items()):
        clip = np.zeros((frames, 48, 64, 3), np.uint8)
        clip[..., 0] = (4 * np.arange(frames) + 20 * number)[:, None, None] % 256
        clip[..., 1] = np.arange(64) * 3
        path = folder / "in" / f"{name}.mp4"
        write_video(path, clip, 24)
        if bucket:
            patiently(lambda p=path, n=name: storage.publish(p, f"{bucket}/in/{n}.mp4", endpoint))
    # (Without loss: what is compared is then every sample that was completed, not an encoder. Where
    # there is AVX-512, x264's macroblock tree, which we switch off, reads memory that nobody has
    # set: of equal frames it made packets that differed.)
    rows = [{"video": f"{name}.mp4", "output": f"{name}.mkv"} for name in LENGTHS]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "model").mkdir()
    (folder / "model/weights.safetensors").write_bytes(bytes(10**6))  # (not in Ray's messages)
    (folder / "model/config.yaml").write_text("format: 1")


def configuration(folder: Path, output: str, bucket: str = "", endpoint: str = "") -> JobConfig:
    """Of `write_inputs`' videos."""
    inference = {
        "manifest": str(folder / "list.jsonl"),
        "videos": f"{bucket or folder}/in",
        "output": output,
        "scratch": str(folder / "scratch"),
        "options": {"lossless": True},
        "segment_frames": SEGMENT,
        "limits": {"seam": None, "warping": None},  # (grey holes break any)
        "actors": ACTORS,
        "cpus_per_actor": 1.5,  # (one on each node: what is lost leaves no room for another)
    }
    data = {"videos": "x", "s3_endpoint": endpoint or None}
    return JobConfig.parse({"data": data, "inference": inference})


def in_peace(cfg: JobConfig, model: Path) -> None:
    """The whole batch by plain functions, in this process, which take no cluster."""
    identity, started = pin_model(cfg, model)[0], time.monotonic()
    plan, settings = plan_batch(cfg, identity), batch_settings(cfg, identity)
    outcomes = [complete_one(task, settings) for task in plan.tasks]

    def call(function, arguments) -> list:
        return [function(*given, settings) for given in arguments]

    publish_results(cfg, identity, plan, outcomes, settings, started, call, False)
