"""One training stage on the cluster: a Ray Train job over a Ray Data stream, logged to MLflow.

A stage's folder is named by what decides its outcome (configuration, data, earlier stages): the
same stage is found again, finished or half-way, and another one never mistaken for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from cssta.config import ModelConfig
from cssta.losses import LossWeights
from pipelines import storage
from pipelines.checkpoints import Checkpoints
from pipelines.clip_plan import plan_clips
from pipelines.config import JobConfig
from pipelines.failures import Failures, TooManyFailuresError
from pipelines.manifest import Manifest
from pipelines.progress import Progress, relay
from pipelines.retries import with_retries
from pipelines.stage_clips import OwnStreams, Pools, stage_streams, with_pools
from pipelines.storage import StorageError
from pipelines.tracking import StageRun
from pipelines.train_loop import PICTURE, StageTask, train_worker
from pipelines.worker_resources import cpus_per_worker

logger = logging.getLogger(__name__)

STAGES = ("im2im", "inpainter", "temporal")
CADENCE = {"log_every", "checkpoint_every", "validate_every"}  # decide nothing of the outcome
VALIDATION_CLIPS = 4
RESTARTS = 3  # of a stage whose worker or node died

# A worker's report waits for the controller's next look; Ray's 2 s would hold up short steps.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")


class StageError(ValueError):
    """A stage could not be trained; the message says which and why."""


@dataclass(frozen=True)
class StageResult:
    """A finished stage: the exported network's safetensors and the last metrics."""

    name: str
    digest: str
    weights: bytes = field(repr=False)
    metrics: dict[str, float]
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Videos:
    """Training and held-out videos of a job, and where failures while streaming are told."""

    training: Manifest
    held_out: Manifest
    failures: Failures | None = None
    pools: Pools = field(default_factory=Pools)
    """What else a stage draws clips from; each looks for its own."""


def train_stage(
    cfg: JobConfig,
    name: str,
    model: ModelConfig,
    weights: dict[str, bytes],
    videos: Videos,
    run: StageRun,
    say: Callable[[str], None] = print,
) -> StageResult:
    """Train stage `name`, or go on with it, or take its result if it is there.

    `weights`: safetensors by network name; earlier stages' results and, under `name` itself, where
    to start. Needs a connected Ray. Raises ConfigError when the cluster is too small for the
    workers, StageError when training fails for good.
    """
    started = time.monotonic()
    videos = with_pools(cfg.data, name, videos)
    digest = stage_digest(cfg, name, model, weights, videos.training, videos.pools)
    endpoint = cfg.data.s3_endpoint
    run_name = f"{name}-{digest}"
    folder = storage.join(cfg.cluster.storage, cfg.name, "stages", run_name)
    record = storage.join(folder, "result.json")
    stored = storage.join(folder, f"{name}.safetensors")
    run.log_params({"digest": digest, **_stage_params(cfg, name)})
    if with_retries(lambda: storage.exists(record, endpoint)):
        content = json.loads(with_retries(lambda: storage.read_bytes(record, endpoint)))
        weights = with_retries(lambda: storage.read_bytes(stored, endpoint))
        run.set_tags({"reused": True})
        run.log_metrics(content["metrics"])
        return StageResult(
            name, digest, weights, content["metrics"], content["seconds"], reused=True
        )
    cpus = cpus_per_worker(cfg.cluster, [node.get("CPU", 0) for node in _nodes()])
    task = StageTask(
        name=name,
        config=model,
        stage=getattr(cfg.stages, name),
        losses=LossWeights(**cfg.losses.model_dump()),
        data=cfg.data,
        seed=cfg.seed,
        threads=max(1, math.floor(cpus)),
        weights=weights,
        validation=_validation_rows(cfg, videos),
        checkpoints=Checkpoints(folder, endpoint),
    )
    with relay(say) as progress:
        _fit(cfg, task, run_name, videos, StageLog(run, task, progress), cpus)
    with TemporaryDirectory() as scratch:
        kept = task.checkpoints.restore(Path(scratch))
        if kept is None or kept.step < task.stage.steps:
            raise StageError(
                f"stage {name} left no checkpoint of its last step in {folder}; cluster.storage "
                "must be a bucket or a folder that all nodes share"
            )
        weights = exported_weights(scratch)
    seconds = time.monotonic() - started
    document = json.dumps({"metrics": kept.metrics, "seconds": seconds}).encode()
    with_retries(lambda: storage.write_bytes(weights, stored, endpoint))
    with_retries(lambda: storage.write_bytes(document, record, endpoint))
    return StageResult(name, digest, weights, kept.metrics, seconds, reused=False)


def stage_digest(
    cfg: JobConfig,
    name: str,
    model: ModelConfig,
    weights: dict[str, bytes],
    videos: Manifest,
    pools: Pools | None = None,
) -> str:
    """Twelve hex digits over everything that decides the stage's outcome."""
    decisive = {
        "stage": name,
        "model": model.to_dict(),
        "settings": getattr(cfg.stages, name).model_dump(mode="json", exclude=CADENCE),
        "losses": cfg.losses.model_dump(mode="json"),
        "data": cfg.data.model_dump(mode="json", exclude={"max_failures", "prepared"}),
        "seed": cfg.seed,
        "workers": cfg.cluster.workers,
        "videos": [[v.uri, v.frames, v.height, v.width] for v in videos.videos],
        "frames": videos.digest,
        "pools": (pools or Pools()).digests(),
        "weights": {key: hashlib.sha256(value).hexdigest() for key, value in weights.items()},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def exported_weights(checkpoint: str) -> bytes:
    """The network to build on: the weight average where the checkpoint has one."""
    names = ("average.safetensors", "network.safetensors")
    for name in names:
        uri = storage.join(checkpoint, name)
        if storage.exists(uri):
            return storage.read_bytes(uri)
    raise StageError(f"{checkpoint}: holds neither {names[0]} nor {names[1]}")


class StageLog(UserCallback):
    """Passes what workers report to MLflow and to the job's output; runs in the controller."""

    def __init__(self, run: StageRun, task: StageTask, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.name, self.steps, self.checkpoints = task.name, task.stage.steps, task.checkpoints

    def after_report(self, run_context, metrics, checkpoint) -> None:
        report = _mean_of_workers(metrics)
        step = int(report.pop("step"))
        self.run.log_step(report, step)
        shown = ("loss", "validation_hole_psnr", "steps_per_second", "data_wait_share")
        text = "  ".join(f"{key} {report[key]:.3g}" for key in shown if key in report)
        self.progress.say(f"  {self.name} {step}/{self.steps}  {text}")
        if "validation_psnr" in report:
            self._log_picture(step)

    def _log_picture(self, step: int) -> None:
        picture = storage.join(self.checkpoints.folder(step), PICTURE)
        try:
            with storage.local_copy(picture, s3_endpoint=self.checkpoints.s3_endpoint) as path:
                self.run.log_file(path, f"pictures/step-{step:06d}")
        except StorageError as error:  # (of a checkpoint that could not be kept)
            logger.warning("no picture of step %d: %s", step, error)


def _mean_of_workers(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the workers that have the value; what only the first measures is its own."""
    found = {key: [report[key] for report in reports if key in report] for key in reports[0]}
    return {key: sum(values) / len(values) for key, values in found.items()}


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fit(
    cfg: JobConfig, task: StageTask, run_name: str, videos: Videos, log: StageLog, cpus: float
) -> None:
    """Train the stage to its last checkpoint. Raises StageError."""
    cluster = cfg.cluster
    use_gpu = cluster.use_gpu
    if use_gpu == "auto":
        use_gpu = ray.cluster_resources().get("GPU", 0) >= cluster.workers
    folder = storage.join(cluster.storage, cfg.name, "stages")
    filesystem, path = storage.filesystem(folder, cfg.data.s3_endpoint)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        # What was trained on need not be decoded again.
        datasets=stage_streams(cfg, task, videos, task.checkpoints.last_step),
        dataset_config=OwnStreams(),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)},
        ),
        run_config=RunConfig(
            name=run_name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=RESTARTS),
            callbacks=[log],
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray Train wraps whatever a worker raised, traceback and all
        logger.error("stage %s failed: %s", task.name, error)
        _explain_by_failures(task, videos, error)
        reason = str(error).strip().splitlines()[-1]
        raise StageError(f"stage {task.name} failed: {reason}") from error
    if result.return_value:
        raise StageError(f"stage {task.name} was given up at {result.return_value}")


def _explain_by_failures(task: StageTask, videos: Videos, error: Exception) -> None:
    """Raise StageError with the files' names if it was they who ended the stage."""
    try:
        if videos.failures is not None:
            videos.failures.check()
    except TooManyFailuresError as cause:
        raise StageError(f"stage {task.name} stopped: {cause}") from error


def _validation_rows(cfg: JobConfig, videos: Videos) -> tuple:
    """The same few clips at every validation; of training videos if none could be held out."""
    source = videos.held_out if videos.held_out.videos else videos.training
    data = cfg.data.model_copy(update={"flip": False})
    return tuple(
        plan_clips(
            source,
            data,
            cfg.seed + 1,
            0,
            clips=VALIDATION_CLIPS,
            objects=videos.pools.masks.uris,
        )
    )


def _stage_params(cfg: JobConfig, name: str) -> dict:
    return {**getattr(cfg.stages, name).model_dump(), **cfg.losses.model_dump()}
