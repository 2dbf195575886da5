"""Measure a model where the truth is known: drawn holes in held-out videos, scored per video.

OpenCV's per-frame Telea inpainting is measured on the same holes: a model that does not clearly
beat it is not worth running.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cssta.evaluation.baselines import telea
from cssta.evaluation.scoring import hide
from cssta.metrics import score_clip
from cssta.video import VideoError
from pipelines import storage
from pipelines.actors import (
    CRASHED,
    LoadEngine,
    ModelActor,
    load_inpainter,
    map_rows,
    pack_model,
)
from pipelines.clip_loading import load_clip
from pipelines.clip_plan import ClipRow
from pipelines.config import DataConfig, JobConfig
from pipelines.data_sets import object_sequences
from pipelines.eval_summary import METHODS, METRICS, ClipScore, EvalSummary
from pipelines.footage import find_footage
from pipelines.manifest import Manifest, Rejected, split


def evaluate_model(
    cfg: JobConfig,
    model_folder: str | Path,
    *,
    manifest: Manifest | None = None,
    on_video: Callable[[ClipScore | Rejected, int, int], None] | None = None,
    load_engine: LoadEngine = load_inpainter,
) -> EvalSummary:
    """Score the model in a local folder; holes and videos depend on `cfg` and its seed alone.

    `manifest`: videos that are known already to be usable and held out; None: those of
    `cfg.evaluate.videos`, else the share of `cfg.data.videos` that training holds out.
    Needs a connected Ray. Raises EmptyBucketError without usable videos; a video that fails
    later is counted and named.
    """
    files = pack_model(Path(model_folder))
    held_out = True
    if manifest is None:
        manifest, held_out = held_out_videos(cfg)
    rows = plan_evaluation(cfg, manifest, object_sequences(cfg.data))
    scores: list[ClipScore] = []
    failed = list(manifest.rejected)
    total = len(rows)
    clips = [{"clip": json.dumps(asdict(row))} for row in rows]
    scored = map_rows(cfg, clips, Scorer, cfg.data, files, load_engine)
    for position, row in enumerate(scored.iter_rows(), start=1):
        content = json.loads(row["result"])
        result = Rejected(**content) if "reason" in content else ClipScore(**content)
        (failed if isinstance(result, Rejected) else scores).append(result)
        if on_video:
            on_video(result, position, total)
    return EvalSummary(
        videos=tuple(sorted(scores, key=lambda score: score.video)),
        failed=tuple(failed),
        height=cfg.data.height,
        width=cfg.data.width,
        masks=cfg.data.masks.kind,
        held_out=held_out,
    )


def held_out_videos(cfg: JobConfig) -> tuple[Manifest, bool]:
    """The videos to measure on, and whether training keeps away from them.

    With a single video, or none held out, the training videos have to do.
    """
    if cfg.evaluate.videos is not None:
        others = {"videos": cfg.evaluate.videos, "layout": "auto", "prepared": None}
        return find_footage(cfg.data.model_copy(update=others)), True
    everything = find_footage(cfg.data)
    _, validation = split(everything, cfg.data.validation_fraction, cfg.seed)
    if not validation.videos:
        return everything, False
    return Manifest(validation.videos, everything.rejected), True


def plan_evaluation(
    cfg: JobConfig, manifest: Manifest, objects: Sequence[str] = ()
) -> list[ClipRow]:
    """One clip per video, from its first frame on, centred crop, its own mask seed.

    At most `cfg.evaluate.clips` videos, evenly spaced by name.
    """
    count = min(cfg.evaluate.clips, len(manifest.videos))
    chosen = np.linspace(0, len(manifest.videos) - 1, count).round().astype(int)
    rows = []
    for number, video in enumerate(manifest.videos[index] for index in chosen):
        # By name, not place: the same video gets the same hole wherever the bucket is.
        name = f"{cfg.seed}/{storage.name(video.uri)}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:4], "big")
        others = [o for o in objects if storage.stem(o) != storage.stem(video.uri)] or list(objects)
        use_object = cfg.data.masks.kind == "objects" or (
            cfg.data.masks.kind == "mixed" and number % 2 == 1
        )
        rows.append(
            ClipRow(
                number=number,
                uri=video.uri,
                indices=tuple(range(min(video.frames, cfg.evaluate.max_frames))),
                flip=False,
                crop_y=0.5,
                crop_x=0.5,
                mask_seed=seed,
                objects=others[seed % len(others)] if use_object and others else None,
            )
        )
    return rows


class Scorer(ModelActor):
    """Actor that scores one video per call; its settings are a DataConfig."""

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        clip = json.loads(row["clip"])
        clip = ClipRow(**{**clip, "indices": tuple(clip["indices"])})
        if self.may_start(clip.uri):
            result = score_video(clip, self.settings, self.engine)
        else:
            result = Rejected(clip.uri, "crashed", f"{clip.uri}: {CRASHED}")
        return {"result": json.dumps(asdict(result))}


def score_video(row: ClipRow, data: DataConfig, engine: Any) -> ClipScore | Rejected:
    """Complete the drawn hole with the model and with Telea, and score both."""
    try:
        clip = load_clip(row, data)
        frames, masks = clip["frames"], clip["masks"]
        hidden = hide(frames, masks)  # (the engine never sees what it has to find)
        started = time.monotonic()
        completed = {"cssta": engine.inpaint(hidden, masks)}
        seconds = time.monotonic() - started
        completed["telea"] = telea(hidden, masks)
        scored = {name: score_clip(result, frames, masks) for name, result in completed.items()}
    except VideoError as error:
        return Rejected(row.uri, error.reason, str(error).replace(str(error.path), row.uri))
    except Exception as error:  # one video must not end the evaluation of the others
        return Rejected(row.uri, "unexpected", f"{row.uri}: {type(error).__name__}: {error}")
    return ClipScore(
        video=storage.name(row.uri),
        frames=len(frames),
        holes=int(masks.any(axis=(1, 2)).sum()),
        hole_ratio=float(masks.mean()),
        seconds=seconds,
        scores={f"{name}_{metric}": scored[name][metric] for name in METHODS for metric in METRICS},
    )
