"""What one tuning trial is: a short training of the inpainter with the trial's loss weights.

All trials of a search start from the same weights, see the same clips in the same order and are
scored on the same held-out clips, so that only the loss weights make a difference: what is held out
is decoded once, for all of them. The score is hole PSNR, which does not depend on the weights; it
is reported on the way too, for pruning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat

import numpy as np
import ray
import safetensors.torch
import torch

from cssta.checkpoint import pick_device
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.losses import LossWeights
from cssta.metrics import PSNR_CAP, psnr
from cssta.training import Im2ImStage, InpainterStage, Settings, Stage, seed_step
from pipelines.clip_loading import Clip
from pipelines.clip_plan import ClipRow, plan_clips
from pipelines.config import JobConfig, StageConfig
from pipelines.content_digest import content_digest
from pipelines.data_sets import object_sequences
from pipelines.failures import Failures, most_failures
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, VideoRow, split
from pipelines.stage_settings import stage_settings
from pipelines.tracking import tracking_uri
from pipelines.trial_clips import TrialError, trial_clips


@dataclass(frozen=True)
class TrialStart:
    """What all trials share; weights are safetensors bytes."""

    config: ModelConfig
    im2im: bytes
    inpainter: bytes
    training: tuple[ClipRow, ...]
    videos: tuple[VideoRow, ...]
    """Those that the training clips are from, to take others from in the place of damaged ones."""
    scored: tuple[Clip, ...]


@dataclass(frozen=True)
class TrialObjective:
    """The objective for `pipelines.tune.search`, with what it was made from."""

    start: ray.ObjectRef
    failures: Failures
    """Counts the files that trials find bad, besides those that were rejected."""
    inputs: dict[str, str]
    """All that decides a score besides the configuration, by name: digests, and `arithmetic`."""

    def __call__(
        self, params: dict[str, float], cfg: JobConfig, report: Callable[[int, float], None]
    ) -> float:
        """See `trial_score`."""
        return trial_score(ray.get(self.start), params, cfg, report, self.failures)


def trial_objective(cfg: JobConfig, manifest: Manifest | None = None) -> TrialObjective:
    """Prepare once what all trials share; `manifest`: the footage, where it has been found already.

    Needs a connected Ray. Raises EmptyBucketError without usable videos, TooManyFailuresError with
    too few of them, RegistryError or CheckpointError if `model.init` cannot be used, StorageError
    if the footage cannot be read, TrialError if the start cannot be prepared.
    """
    server = tracking_uri(cfg) if (cfg.model.init or "").startswith("models:/") else None
    config, weights, _ = initial_weights(cfg, server)
    manifest = manifest or find_footage(cfg.data)
    failures = watch_failures(cfg, manifest)
    inputs = {"model": _digest(config, weights), **footage_digests(cfg, manifest)}
    inputs["arithmetic"] = arithmetic(cfg)
    prepare = ray.remote(prepare_trials).options(**trial_options(cfg))
    start = prepare.remote(cfg, manifest, config, weights, failures)
    try:
        ray.get(start)
    except ray.exceptions.RayError as error:  # (a process may also just die)
        cause = getattr(error, "cause", None) or error
        raise TrialError(f"trials cannot be prepared: {cause}") from error
    return TrialObjective(start, failures, inputs)


def watch_failures(cfg: JobConfig, manifest: Manifest) -> Failures:
    """Counts the manifest's bad files, up to `data.max_failures`. Raises TooManyFailuresError."""
    files = len(manifest.videos) + len(manifest.rejected)
    return Failures(most_failures(cfg.data.max_failures, files), manifest.rejected)


def footage_digests(cfg: JobConfig, manifest: Manifest) -> dict[str, str]:
    """Of what trials are trained and scored on. Raises StorageError."""
    endpoint = cfg.data.s3_endpoint
    uris = [video.uri for video in manifest.videos]
    digests = {"footage": manifest.digest or content_digest(uris, endpoint)}
    if objects := object_sequences(cfg.data):
        digests["object masks"] = content_digest(objects, endpoint)
    return digests


def _digest(config: ModelConfig, weights: dict[str, bytes]) -> str:
    whole = hashlib.sha256(repr(config).encode())
    for name, content in sorted(weights.items()):
        whole.update(name.encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()[:16]


def trial_options(cfg: JobConfig) -> dict[str, float]:
    """What a task that trains by itself takes of the cluster."""
    return {"num_cpus": cfg.cluster.cpus_per_worker, "num_gpus": 1 if _wants_gpu(cfg) else 0}


def arithmetic(cfg: JobConfig) -> str:
    """What trials compute on, and how precisely: another gives other scores."""
    gpu, mixed = _wants_gpu(cfg), cfg.stages.inpainter.mixed_precision
    precision = "bfloat16" if (gpu if mixed is None else mixed) else "float32"
    return f"{precision} on {'a GPU' if gpu else 'CPUs'}"


def prepare_trials(
    cfg: JobConfig,
    manifest: Manifest,
    config: ModelConfig,
    weights: dict[str, bytes],
    failures: Failures | None = None,
) -> TrialStart:
    """Plan the clips, and take or train the IM2IM that teaches and the inpainter to start from.

    `config`, `weights`: see `pipelines.initial_weights`. Raises as `trial_clips` does.
    """
    training, rows, held_out, scored = plan_trials(cfg, manifest)
    own = rows[: cfg.tune.steps * cfg.stages.im2im.batch_size]
    # (first: what is wrong with them is told before anything is trained)
    scored_clips = tuple(trial_clips(scored, held_out.videos, cfg.data, failures))
    torch.manual_seed(cfg.seed)
    if "im2im" in weights:
        im2im = _unpack(weights["im2im"], Im2Im(config))
    else:
        clips = partial(trial_clips, own, training.videos, cfg.data, failures)
        im2im = _train_teacher(cfg, config, clips)
    inpainter = InpaintingNetwork(config)
    if "inpainter" in weights:
        _unpack(weights["inpainter"], inpainter)
    else:
        inpainter.start_from(im2im)
    return TrialStart(config, _pack(im2im), _pack(inpainter), rows, training.videos, scored_clips)


def plan_trials(
    cfg: JobConfig, manifest: Manifest
) -> tuple[Manifest, tuple[ClipRow, ...], Manifest, tuple[ClipRow, ...]]:
    """Videos and clips to train on, then videos and clips to score on."""
    training, held_out = split(manifest, cfg.data.validation_fraction, cfg.seed)
    # (a bucket of one video has none to hold out: other clips of it have to do)
    held_out = held_out if held_out.videos else training
    objects = object_sequences(cfg.data)
    batch_size = max(cfg.stages.im2im.batch_size, cfg.stages.inpainter.batch_size)
    clips = cfg.tune.seeds * cfg.tune.steps * batch_size
    rows = plan_clips(training, cfg.data, cfg.seed, 0, clips=clips, objects=objects)
    upright = cfg.data.model_copy(update={"flip": False})
    scored = plan_clips(held_out, upright, cfg.seed + 1, 0, clips=cfg.tune.clips, objects=objects)
    return training, tuple(rows), held_out, tuple(scored)


def trial_score(
    start: TrialStart,
    params: dict[str, float],
    cfg: JobConfig,
    report: Callable[[int, float], None] = lambda step, score: None,
    failures: Failures | None = None,
) -> float:
    """Mean hole PSNR (dB) over the scored clips after `cfg.tune.steps` steps; higher is better.

    And over `cfg.tune.seeds` such trainings. `params` replace the configured loss weights of the
    same name; `report` is told the score every `cfg.tune.score_every` steps before the last, and
    after every training but the last. Raises DivergedError, what `trial_clips` raises, and what
    `report` raises.
    """
    steps, section = cfg.tune.steps, cfg.stages.inpainter
    every = cfg.tune.score_every or max(1, steps // 4)
    scores: list[float] = []
    for number in range(cfg.tune.seeds):
        seed, done = cfg.seed + number, number * steps
        first, count = done * section.batch_size, steps * section.batch_size
        rows = start.training[first : first + count]
        clips = partial(trial_clips, rows, start.videos, cfg.data, failures)
        stage = _inpainter_stage(start, params, cfg, seed)
        for step in _train(stage, clips, steps, section, seed):
            if step % every == 0 and step < steps:
                report(done + step, float(np.mean([*scores, hole_psnr(stage, start.scored)])))
        scores.append(hole_psnr(stage, start.scored))
        if number < cfg.tune.seeds - 1:
            report(done + steps, float(np.mean(scores)))
    return float(np.mean(scores))


def _inpainter_stage(
    start: TrialStart, params: dict[str, float], cfg: JobConfig, seed: int
) -> InpainterStage:
    torch.manual_seed(seed)
    return InpainterStage(
        start.config,
        _unpack(start.inpainter, InpaintingNetwork(start.config)),
        _settings(cfg.stages.inpainter),
        LossWeights(**(cfg.losses.model_dump() | params)),
        pick_device(None if cfg.cluster.use_gpu else "cpu"),
        teacher=_unpack(start.im2im, Im2Im(start.config)),
    )


def hole_psnr(stage: Stage, clips: Sequence[Clip]) -> float:
    """Mean over all frames with a hole, in dB; a frame completed exactly counts PSNR_CAP."""
    scores = []
    for clip in clips:
        batch = {key: value[None].copy() for key, value in clip.items()}
        result, truth = stage.complete(batch)
        scores.append(psnr(result, truth, batch["masks"].reshape(truth.shape[:3])))
    values = np.concatenate(scores) if scores else np.array([np.nan])
    values = np.minimum(values[~np.isnan(values)], PSNR_CAP)
    return float(values.mean()) if values.size else float("nan")


def _train_teacher(
    cfg: JobConfig, config: ModelConfig, clips: Callable[[], Iterator[Clip]]
) -> Im2Im:
    stage = Im2ImStage(
        config,
        Im2Im(config),
        _settings(cfg.stages.im2im),
        LossWeights(**cfg.losses.model_dump()),
        pick_device(None if cfg.cluster.use_gpu else "cpu"),
    )
    for _ in _train(stage, clips, cfg.tune.steps, cfg.stages.im2im, cfg.seed):
        pass
    return stage.exported


def _train(
    stage: Stage,
    clips: Callable[[], Iterator[Clip]],
    steps: int,
    section: StageConfig,
    seed: int,
) -> Iterator[int]:
    """Train on the clips, over and over; yields the number of steps done after each."""
    stream = chain.from_iterable(read() for read in repeat(clips))
    while stage.steps < steps:
        seed_step(seed, stage.steps)
        held = list(islice(stream, section.batch_size))
        stage.step({key: np.stack([clip[key] for clip in held]) for key in held[0]})
        yield stage.steps


def _settings(stage: StageConfig) -> Settings:
    # No weight average: over a short run it would mostly remember the start.
    return replace(stage_settings(stage), ema=0.0)


def _wants_gpu(cfg: JobConfig) -> bool:
    return cfg.cluster.use_gpu is not False and ray.cluster_resources().get("GPU", 0) >= 1


def _pack(network: torch.nn.Module) -> bytes:
    tensors = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    return safetensors.torch.save(tensors)


def _unpack(content: bytes, network: torch.nn.Module) -> torch.nn.Module:
    network.load_state_dict(safetensors.torch.load(content))
    return network
