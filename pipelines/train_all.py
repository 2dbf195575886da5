"""The main job: three training stages, evaluation, registration, completed videos."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines import storage
from pipelines.actors import pack_model
from pipelines.batch import BatchSummary, complete_bucket
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity
from pipelines.batch_summary import STATUSES
from pipelines.config import JobConfig
from pipelines.content_digest import content_digest
from pipelines.eval_summary import EvalSummary
from pipelines.evaluate import evaluate_model
from pipelines.failures import Failures, most_failures
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, Rejected, split
from pipelines.model_card import CARD, model_card
from pipelines.model_folder import write_model_folder
from pipelines.registry import CANDIDATE, ModelVersionInfo, aliases, exists, register
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
            version, metrics = _evaluate_and_register(cfg, folder, videos, run, say)
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
            _known_as(version, run.tracking_uri),
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


def _evaluate_and_register(
    cfg: JobConfig, folder: Path, videos: Videos, run: JobRun, say: Say
) -> tuple[ModelVersionInfo, dict[str, float]]:
    """Score and register the model, unless this very model has been, by this job."""
    endpoint = cfg.data.s3_endpoint
    record = storage.join(cfg.cluster.storage, cfg.name, "registered.json")
    identity = _identity(cfg, folder, run.tracking_uri)
    if storage.exists(record, endpoint):
        content = json.loads(storage.read_bytes(record, endpoint))
        version = ModelVersionInfo(**content["version"])
        if content["identity"] == identity and exists(version.uri, run.tracking_uri):
            say(f"already evaluated and registered: {version.uri}")
            run.log_metrics(content["metrics"])
            return version, content["metrics"]
    manifest = None if cfg.evaluate.videos or not videos.held_out.videos else videos.held_out
    say("evaluating")
    evaluation: EvalSummary = evaluate_model(cfg, folder, manifest=manifest)
    metrics = {k: v for k, v in evaluation.metrics().items() if v == v}
    run.log_metrics(metrics)
    with tempfile.TemporaryDirectory() as scratch:
        for file in evaluation.write(Path(scratch)):
            run.log_file(file)
    version = register(
        folder,
        name=cfg.registry.name,
        alias=cfg.registry.alias,
        run_id=run.run_id,
        metrics=metrics,
        tracking_uri=run.tracking_uri,
    )
    say(f"registered {version.uri} as {_known_as(version, run.tracking_uri)}")
    document = {"identity": identity, "version": asdict(version), "metrics": metrics}
    storage.write_bytes(json.dumps(document).encode(), record, endpoint)
    return version, metrics


def _known_as(version: ModelVersionInfo, tracking_uri: str) -> str:
    """The model's URI by its alias; by its number where it has none (any more)."""
    found = aliases(version, tracking_uri)
    return f"models:/{version.name}@{found[0]}" if found else version.uri


def _identity(cfg: JobConfig, folder: Path, tracking_uri: str) -> str:
    """Digest of the weights, the evaluation's configuration and the registry."""
    whole = hashlib.sha256()
    for name, content in sorted(pack_model(folder).items()):
        if name == CARD:  # (where a stage was trained decides nothing)
            continue
        whole.update(name.encode() + hashlib.sha256(content).digest())
    parts = (cfg.evaluate, cfg.registry, cfg.data)
    settings = [part.model_dump(mode="json") for part in parts]
    whole.update(json.dumps([settings, cfg.seed], sort_keys=True).encode())
    return whole.hexdigest()


def _on_video(say: Say) -> Callable:
    def show(outcome, position: int, total: int) -> None:
        details = f": {outcome.message}" if outcome.status == "failed" else ""
        say(f"[{position}/{total}] {outcome.status} {outcome.name}{details}")

    return show
