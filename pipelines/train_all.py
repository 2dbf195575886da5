"""The main job: three training stages, evaluation, registration, completed videos."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import storage
from pipelines.batch import BatchSummary, complete_bucket
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity
from pipelines.batch_summary import STATUSES
from pipelines.config import JobConfig
from pipelines.content_digest import content_digest
from pipelines.failures import Failures, most_failures
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, Rejected, split
from pipelines.model_card import CARD, model_card
from pipelines.model_folder import write_model_folder
from pipelines.registration import evaluate_and_register, known_as
from pipelines.registry import CANDIDATE, ModelVersionInfo
from pipelines.tracking import JobRun
from pipelines.train_stage import STAGES, StageResult, Videos, train_stage

Say = Callable[[str], None]
NOTHING_TO_COMPLETE = "no videos to complete were configured (inference.videos)"


@dataclass(frozen=True)
class TrainSummary:
    """What a job came to. `batch` is None where no videos to complete were named."""

    model: ModelVersionInfo
    model_uri: str
    stages: tuple[StageResult, ...]
    metrics: dict[str, float]
    rejected: tuple[Rejected, ...]
    tracking_uri: str
    run_id: str
    batch: BatchSummary | None = field(default=None)
    seconds: float = 0.0

    def text(self) -> str:
        """The summary for a person."""
        lines = []
        for stage in self.stages:
            how = "reused" if stage.reused else f"{stage.seconds:.0f} s"
            score = stage.metrics.get("validation_hole_psnr", float("nan"))
            loss = stage.metrics.get("loss", float("nan"))
            lines.append(f"stage {stage.name}: {how}, loss {loss:.3f}, hole PSNR {score:.2f} dB")
        lines += [f"rejected ({bad.reason}): {bad.message}" for bad in self.rejected]
        for method in ("cssta", "telea"):
            if f"{method}_psnr" in self.metrics:
                psnr, ssim, hole = (
                    self.metrics[f"{method}_{key}"] for key in ("psnr", "ssim", "hole_psnr")
                )
                scores = f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}, hole PSNR {hole:.2f} dB"
                lines.append(f"held out, {method}: {scores}")
        lines.append(f"registered: {self.model.uri}, also as {self.model_uri}")
        if self.model_uri.endswith(f"@{CANDIDATE}"):
            lines.append("it takes over if it is better: jobs/promote.py")
        lines.append(self.batch.text() if self.batch else NOTHING_TO_COMPLETE)
        lines.append(f"MLflow run {self.run_id} at {self.tracking_uri}")
        lines.append(f"{self.seconds:.0f} s in all")
        return "\n".join(lines)


def train_all(cfg: JobConfig, say: Say = print) -> TrainSummary:
    """Run the whole job; what an earlier run of the same configuration finished is reused.

    Needs a connected Ray. Raises ConfigError, EmptyBucketError, BatchError, StageError or
    RegistryError; one bad video among good ones is counted and named in the summary instead.
    """
    started = time.monotonic()
    endpoint = cfg.data.s3_endpoint
    with JobRun.start(cfg) as run:
        videos = find_videos(cfg, say)
        model, weights, start = initial_weights(cfg, run.tracking_uri)
        say(f"starting weights: {start}")
        stages: list[StageResult] = []
        for name in STAGES:
            say(f"stage {name}: {getattr(cfg.stages, name).steps} steps")
            with run.stage(name) as stage_run:
                known = _for_stage(name, weights)
                result = train_stage(cfg, name, model, known, videos, stage_run, say)
            say(f"stage {name}: {'reused' if result.reused else f'done in {result.seconds:.0f} s'}")
            weights[name] = result.weights
            stages.append(result)
        with tempfile.TemporaryDirectory(prefix="cssta-model-") as scratch:
            folder = write_model_folder(Path(scratch), model, {k: weights[k] for k in STAGES})
            (folder / CARD).write_text(model_card(cfg, start, stages, videos), encoding="utf-8")
            version, metrics = evaluate_and_register(cfg, folder, videos, run, say)
        rejected = _all_rejected(videos)
        run.log_metrics({"videos_rejected": len(rejected)})
        run.set_tags({"model_version": version.uri, "rejected": [bad.uri for bad in rejected]})
        batch = None
        if cfg.inference.videos is not None:
            say(f"completing {cfg.inference.videos} with {version.uri}")
            batch = complete_bucket(cfg, version.uri, on_video=_on_video(say))
            run.log_metrics({f"batch_{k}": batch.count(k) for k in STATUSES})
        summary = TrainSummary(
            version,
            known_as(version, run.tracking_uri),
            tuple(stages),
            metrics,
            rejected,
            run.tracking_uri,
            run.run_id,
            batch,
            time.monotonic() - started,
        )
        document = json.dumps({"summary": summary.text(), "metrics": metrics}, indent=1)
        target = storage.join(cfg.cluster.storage, cfg.name, "summary.json")
        storage.write_bytes(document.encode(), target, endpoint)
        return summary


def _for_stage(name: str, weights: dict[str, bytes]) -> dict[str, bytes]:
    """What a stage may know: its own start and the results of the stages before it."""
    known = STAGES[: STAGES.index(name) + 1]
    return {key: value for key, value in weights.items() if key in known}


def find_videos(cfg: JobConfig, say: Say) -> Videos:
    """What to train on and what is held out; also sees that what later parts need is there."""
    endpoint = cfg.data.s3_endpoint
    # What is wrong with later parts' locations is told now, not after days of training.
    if cfg.evaluate.videos is not None:
        storage.list_videos(cfg.evaluate.videos, endpoint)
    if cfg.inference.videos is not None:
        plan_batch(cfg, ModelIdentity("not trained yet", "", ""))
    everything = find_footage(cfg.data)
    say(f"{cfg.data.prepared or cfg.data.videos}: {everything.describe()}")
    training, held_out = split(everything, cfg.data.validation_fraction, cfg.seed)
    digest = everything.digest or content_digest([v.uri for v in training.videos], endpoint)
    training = Manifest(training.videos, everything.rejected, digest)
    say(f"{len(training.videos)} to train on, {len(held_out.videos)} held out")
    files = len(everything.videos) + len(everything.rejected)
    limit = most_failures(cfg.data.max_failures, files)
    return Videos(training, held_out, Failures(limit, everything.rejected))


def _all_rejected(videos: Videos) -> tuple[Rejected, ...]:
    return (*videos.training.rejected, *videos.failures.list())


def _on_video(say: Say) -> Callable:
    def show(outcome, position: int, total: int) -> None:
        details = f": {outcome.message}" if outcome.status == "failed" else ""
        say(f"[{position}/{total}] {outcome.status} {outcome.name}{details}")

    return show
