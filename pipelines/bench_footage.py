"""Videos and object masks for benchmarks, written where none are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from cssta.video import write_video
from pipelines.clip_plan import ClipPlan
from pipelines.data_config import DataConfig, MasksConfig
from pipelines.data_sets import mask_sequences
from pipelines.manifest import Manifest, VideoRow, probe_video
from pipelines.storage import list_videos


def bucket(folder: Path, videos: int = 12, frames: int = 96) -> Path:
    """Videos, 288 x 512, of a texture that drifts."""
    rng = np.random.default_rng(0)
    for number in range(videos):
        noise = rng.integers(0, 255, (37, 2 * frames, 3), np.uint8)
        wide = cv2.resize(noise, (512 + 2 * frames, 288), interpolation=cv2.INTER_CUBIC)
        views = [wide[:, 2 * frame : 2 * frame + 512] for frame in range(frames)]
        write_video(folder / f"{number}.mp4", np.stack(views), 24)
    return folder


def larger_bucket(source: Path, folder: Path, least_bytes: int) -> Path:
    """Copies of the source's videos under other names, until they are more than `least_bytes`."""
    files = [Path(video.uri) for video in list_videos(str(source))]
    total, copies = 0, 0
    folder.mkdir(parents=True)
    while total <= least_bytes:
        file = files[copies % len(files)]
        name = f"{copies // len(files):04}-{file.name}"
        (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / name)
        total += sum(one.stat().st_size for one in (folder / name).rglob("*")) or (
            (folder / name).stat().st_size
        )
        copies += 1
    return folder


def object_masks(folder: Path, sequences: int = 8, frames: int = 24) -> Path:
    """Mask sequences, 288 x 512, of an ellipse that drifts, as annotations hold them."""
    rng = np.random.default_rng(1)
    for number in range(sequences):
        (folder / f"object{number}").mkdir(parents=True)
        axes = [int(side) for side in rng.integers(25, 80, 2)]
        for frame in range(frames):
            mask = np.zeros((288, 512), np.uint8)
            cv2.ellipse(mask, (100 + 8 * frame, 144), axes, 0, 0, 360, number + 1, -1)
            cv2.imwrite(str(folder / f"object{number}" / f"{frame:05}.png"), mask)
    return folder


def plan_of(
    folder: Path, size: int, clips: int, kind: str = "freeform", objects: Path | None = None
) -> ClipPlan:
    """Clips of the folder's videos, `size` x `size`, `clips` per epoch, with masks of that kind."""
    masks = MasksConfig(kind=kind, objects=None if objects is None else str(objects))
    cfg = DataConfig(
        videos=str(folder), height=size, width=size, clips_per_epoch=clips, masks=masks
    )
    found = (probe_video(video.uri) for video in list_videos(str(folder)))
    rows = tuple(row for row in found if isinstance(row, VideoRow))
    return ClipPlan(Manifest(rows), cfg, 0, mask_sequences(cfg).uris)
