"""Is what a search found better than what was configured, on footage that the search never saw?

The best of many trials is partly the luckiest one. So both sets of weights are trained again, from
other seeds and to the same number of steps, and scored on other videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import ray

from pipelines import storage
from pipelines.clip_plan import plan_clips
from pipelines.config import JobConfig
from pipelines.data_sets import object_sequences
from pipelines.initial_weights import initial_weights
from pipelines.manifest import build_manifest
from pipelines.tracking import tracking_uri
from pipelines.trial import TrialError, prepare_trials, trial_options, trial_score

CLIPS_PER_VIDEO = 2


@dataclass(frozen=True)
class Check:
    """Hole PSNR (dB) by seed, of the configured and of the found weights."""

    configured: tuple[float, ...]
    found: tuple[float, ...]
    videos: int

    @property
    def gains(self) -> tuple[float, ...]:
        """By how much the found weights are better, by seed (dB)."""
        return tuple(b - a for a, b in zip(self.configured, self.found, strict=True))

    def text(self) -> str:
        """The outcome for a person."""
        gains = ", ".join(f"{gain:+.2f}" for gain in self.gains)
        return (
            f"checked on {self.videos} other videos from {len(self.gains)} other seeds: hole PSNR "
            f"{np.mean(self.configured):.2f} dB as configured, {np.mean(self.found):.2f} dB with "
            f"the best ({np.mean(self.gains):+.2f} dB; by seed {gains})"
        )


def check_best(
    cfg: JobConfig,
    params: dict[str, float],
    videos: str,
    seeds: int,
    on_seed: Callable[[int, float, float], None] = lambda seed, configured, found: None,
) -> Check:
    """Train with the configured weights and with `params`, from `seeds` other seeds; score both.

    `videos`: a folder or bucket that `cfg.data.videos` does not hold. `on_seed` sees every seed's
    scores as they come. Needs a connected Ray; raises as `trial_objective` does.
    """
    endpoint = cfg.data.s3_endpoint
    server = tracking_uri(cfg) if (cfg.model.init or "").startswith("models:/") else None
    config, weights, _ = initial_weights(cfg, server)
    training = build_manifest(storage.list_videos(cfg.data.videos, endpoint), endpoint)
    others = build_manifest(storage.list_videos(videos, endpoint), endpoint)
    rows = plan_clips(
        others,
        cfg.data.model_copy(update={"flip": False}),
        cfg.seed + 2,
        0,
        clips=CLIPS_PER_VIDEO * len(others.videos),
        objects=object_sequences(cfg.data),
    )
    prepare = ray.remote(prepare_trials).options(**trial_options(cfg))
    train = ray.remote(_score).options(**trial_options(cfg))
    jobs = []
    for seed in range(cfg.seed + 1, cfg.seed + 1 + seeds):
        own = cfg.model_copy(update={"seed": seed})
        start = prepare.remote(own, training, config, weights)
        jobs.append((seed, *(train.remote(start, tuple(rows), p, own) for p in ({}, params))))
    scores = []
    for seed, *pair in jobs:
        try:
            scores.append(tuple(ray.get(pair)))
        except ray.exceptions.RayTaskError as error:
            raise TrialError(f"the check failed: {error.cause or error}") from error
        on_seed(seed, *scores[-1])
    return Check(*(tuple(column) for column in zip(*scores, strict=True)), len(others.videos))


def _score(start, rows: tuple, params: dict[str, float], cfg: JobConfig) -> float:
    return trial_score(replace(start, scored=rows), params, cfg)
