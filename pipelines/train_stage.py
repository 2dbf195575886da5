"""One training stage on the cluster: a Ray Train job over a Ray Data stream, logged to MLflow.

A stage's folder is named by what decides its outcome (configuration, data, earlier stages): the
same stage is found again, finished or half-way, and another one never mistaken for it.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
import ray.train
from ray.train import (
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from cssta.config import ModelConfig
from cssta.losses import LossWeights
from pipelines import storage
from pipelines.checkpoints import Checkpoints
from pipelines.clip_loading import Clip
from pipelines.clip_plan import plan_clips
from pipelines.config import JobConfig
from pipelines.failures import DecoderCrashError, Failures, TooManyFailuresError
from pipelines.guarded_clips import held_out_clips
from pipelines.manifest import Manifest
from pipelines.progress import relay
from pipelines.stage_clips import OwnStreams, Pools, stage_streams, with_pools
from pipelines.stage_identity import (
    decisive_parts,
    digest_of,
    keep_decisive,
    unlike_the_newest,
)
from pipelines.stage_log import FailureLimit, StageLog
from pipelines.stage_result import DamagedResultError, StageResult, keep_result, kept_result
from pipelines.storage import StorageError
from pipelines.tracking import StageRun
from pipelines.train_loop import StageTask, train_worker
from pipelines.worker_resources import cpus_per_worker

logger = logging.getLogger(__name__)

STAGES = ("im2im", "inpainter", "temporal")

# A worker's report waits for the controller's next look; Ray's 2 s would hold up short steps.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")


class StageError(ValueError):
    """A stage could not be trained; the message says which and why."""


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
    decisive = decisive_parts(cfg, name, model, weights, videos.training, videos.pools)
    digest = digest_of(decisive)
    endpoint, steps = cfg.data.s3_endpoint, getattr(cfg.stages, name).steps
    folder = storage.join(cfg.cluster.storage, cfg.name, "stages", f"{name}-{digest}")
    checkpoints = Checkpoints(folder, endpoint)
    run.log_params({"digest": digest, **_stage_params(cfg, name)})
    try:
        found = kept_result(name, digest, folder, endpoint)
    except DamagedResultError as error:
        if checkpoints.last_step() < steps:
            raise StageError(
                f"stage {name} was finished, but {error}; put the file back, or remove {folder} to "
                "train the stage anew"
            ) from error
        say(f"stage {name}: {error}; it is made again from the last checkpoint")
    else:
        if found is not None:
            run.set_tags({"reused": True})
            run.log_metrics(found.metrics)
            return found
        if checkpoints.last_step() == 0 and (line := unlike_the_newest(decisive, folder, endpoint)):
            say(line)
        keep_decisive(decisive, folder, endpoint)
        _fit(cfg, name, model, weights, videos, run, say, checkpoints)
    with TemporaryDirectory() as scratch:
        kept = checkpoints.restore(Path(scratch))
        if kept is None or kept.step < steps:
            raise StageError(
                f"stage {name} left no checkpoint of its last step in {folder}; cluster.storage "
                "must be a bucket or a folder that all nodes share"
            )
        exported = exported_weights(scratch)
    seconds = time.monotonic() - started
    result = StageResult(name, digest, exported, kept.metrics, seconds, reused=False)
    keep_result(result, folder, endpoint)
    return result


def exported_weights(checkpoint: str) -> bytes:
    """The network to build on: the weight average where the checkpoint has one."""
    names = ("average.safetensors", "network.safetensors")
    for name in names:
        uri = storage.join(checkpoint, name)
        if storage.exists(uri):
            return storage.read_bytes(uri)
    raise StageError(f"{checkpoint}: holds neither {names[0]} nor {names[1]}")


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fit(
    cfg: JobConfig,
    name: str,
    model: ModelConfig,
    weights: dict[str, bytes],
    videos: Videos,
    run: StageRun,
    say: Callable[[str], None],
    checkpoints: Checkpoints,
) -> None:
    """Train the stage to its last checkpoint. Raises StageError."""
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
        validation=ray.put(_validation_clips(cfg, name, videos)),
        checkpoints=checkpoints,
    )
    restarts, fruitless = cfg.cluster.restarts, 0
    with relay(say) as progress:
        callbacks = [StageLog(run, task, progress), FailureLimit(videos.failures)]
        while True:
            before = checkpoints.last_step()
            try:
                result = _trainer(cfg, task, videos, callbacks, cpus).fit()
                break
            except Exception as error:  # Ray Train wraps whatever a worker raised
                logger.error("stage %s failed: %s", name, error)
                _explain_by_failures(task, videos, error)
                reason = f"stage {name} failed: {str(error).strip().splitlines()[-1]}"
                if not isinstance(error, TrainingFailedError):
                    raise StageError(reason) from error
                # Ray gives up after so many lost workers, whatever they had come to, and after
                # one that is lost while the controller starts it.
                restarted = restarts if isinstance(error, WorkerGroupError) else 0
                step = checkpoints.last_step()
                fruitless = 0 if step > before else fruitless + restarted + 1
                if fruitless > restarts:
                    raise StageError(
                        f"{reason}; {restarts} restarts brought it no further than step {step} "
                        "(cluster.restarts)"
                    ) from error
                say(f"{reason}; going on from step {step}")
    if result.return_value:
        raise StageError(f"stage {name} was given up at {result.return_value}")


def _trainer(
    cfg: JobConfig, task: StageTask, videos: Videos, callbacks: list[UserCallback], cpus: float
) -> TorchTrainer:
    cluster = cfg.cluster
    use_gpu = cluster.use_gpu
    if use_gpu == "auto":
        use_gpu = ray.cluster_resources().get("GPU", 0) >= cluster.workers
    folder, _, run_name = task.checkpoints.uri.rpartition("/")
    filesystem, path = storage.filesystem(folder, cfg.data.s3_endpoint)
    return TorchTrainer(
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
            failure_config=FailureConfig(max_failures=cluster.restarts),
            callbacks=callbacks,
        ),
    )


def _explain_by_failures(task: StageTask, videos: Videos, error: Exception) -> None:
    """Raise StageError with the files' names if it was they who ended the stage."""
    try:
        if videos.failures is not None:
            videos.failures.check()
    except TooManyFailuresError as cause:
        raise StageError(f"stage {task.name} stopped: {cause}") from error


def _validation_clips(cfg: JobConfig, name: str, videos: Videos) -> list[Clip]:
    """The same few clips at every validation; of training videos if none could be held out.

    Raises StageError.
    """
    source = videos.held_out if videos.held_out.videos else videos.training
    upright = cfg.data.model_copy(update={"flip": False})
    count, masks = getattr(cfg.stages, name).validation_clips, videos.pools.masks.uris
    rows = plan_clips(source, upright, cfg.seed + 1, 0, clips=count, objects=masks)
    try:
        return held_out_clips(rows, cfg.data, videos.failures)
    except TooManyFailuresError as error:
        raise StageError(f"stage {name} stopped: {error}") from error
    except (StorageError, DecoderCrashError) as error:
        raise StageError(f"stage {name} failed: its held-out clips: {error}") from error


def _stage_params(cfg: JobConfig, name: str) -> dict:
    return {**getattr(cfg.stages, name).model_dump(), **cfg.losses.model_dump()}
