"""A batch in this process, without Ray: survey, all parts, assembly, video by video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.assemble_video import assemble_video
from pipelines.batch import batch_settings
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity, VideoOutcome, VideoTask, failure
from pipelines.batch_source import BatchSettings, opened
from pipelines.batch_units import parts_of
from pipelines.complete_part import complete_part
from pipelines.config import JobConfig
from pipelines.staging import Staging
from pipelines.video_failures import as_failure
from pipelines.watchdog import Watchdog
from tests.pipelines.fake_engines import GreyEngine

MODEL = ModelIdentity("folder", "3", "digest")
NO_LIMITS = {"seam": None, "warping": None}  # (grey holes break any)


def config(tmp_path: Path, **sections) -> JobConfig:
    """From tmp_path/in to tmp_path/out without limits; `inference` is added to that."""
    ends = {"videos": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    ends["scratch"] = str(tmp_path / "scratch")
    given = sections.pop("inference", {})
    inference = {**ends, **given, "limits": NO_LIMITS | given.get("limits", {})}
    return JobConfig.parse({"data": {"videos": "x"}, "inference": inference, **sections})


def settings_of(cfg: JobConfig, model: ModelIdentity = MODEL) -> BatchSettings:
    return batch_settings(cfg, model)


def complete_parts(task: VideoTask, settings: BatchSettings, engine=None) -> list[int]:
    """Survey and complete what is not staged; the numbers of the parts that were done."""
    done = []
    with Watchdog(600) as watchdog:
        for part in parts_of(task, settings, watchdog):
            if Staging(task, settings.s3_endpoint).verified(part.number) is None:
                with opened(task, settings) as video:
                    complete_part(part, video, engine or GreyEngine(), settings)
                done.append(part.number)
    return done


def complete_one(task: VideoTask, settings: BatchSettings, engine=None) -> VideoOutcome:
    """A task's outcome, whatever goes wrong."""
    try:
        complete_parts(task, settings, engine)
        return assemble_video(task, settings)
    except Exception as error:
        return failure(task, *as_failure(task, error))


def complete_all(
    cfg: JobConfig, engine=None, model: ModelIdentity = MODEL
) -> dict[str, VideoOutcome]:
    """Outcomes of all videos that are to be done."""
    settings = settings_of(cfg, model)
    return {t.name: complete_one(t, settings, engine) for t in plan_batch(cfg, model).tasks}


def picture_clip(frames: int) -> np.ndarray:
    """Frames (T, 32, 48, 3) whose red channel is 6 t."""
    clip = np.full((frames, 32, 48, 3), 128, np.uint8)
    clip[..., 0] = 6 * np.arange(frames)[:, None, None]
    return clip
