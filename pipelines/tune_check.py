"""Is what a search found better than what was configured, on footage that the search never saw?

The best of many trials is partly the luckiest one. So both sets of weights are trained again, from
other seeds and to the same number of steps, and scored on other videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray

from pipelines import storage
from pipelines.clip_loading import Clip
from pipelines.clip_plan import ClipRow, plan_clips
from pipelines.config import JobConfig
from pipelines.content_digest import content_digest
from pipelines.data_config import DataConfig
from pipelines.data_sets import object_sequences
from pipelines.failures import Failures
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, VideoRow
from pipelines.tracking import tracking_uri
from pipelines.trial import (
    TrialError,
    TrialStart,
    prepare_trials,
    trial_options,
    trial_score,
    watch_failures,
)
from pipelines.trial_clips import trial_clips

CLIPS_PER_VIDEO = 2
NAMED = 5  # videos in a message


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


def other_footage(cfg: JobConfig, searched: Manifest, videos: str) -> Manifest:
    """The usable videos in a folder or bucket (of any layout), none of which was `searched`.

    Needs a connected Ray. Raises EmptyBucketError or StorageError where there are none or they
    cannot be read, TrialError if some are the search's own, by address or by content.
    """
    places = {"videos": videos, "layout": "auto", "images": None, "prepared": None}
    others = find_footage(cfg.data.model_copy(update=places))
    same = _shared(searched, others, cfg.data.s3_endpoint)
    if same:
        more = len(same) - NAMED
        listed = ", ".join(same[:NAMED]) + (f" and {more} more" if more > 0 else "")
        raise TrialError(
            f"{videos}: {len(same)} of its {len(others.videos)} videos are the search's own "
            f"({listed}); a check needs footage that the search has not seen"
        )
    return others


def _shared(searched: Manifest, others: Manifest, endpoint: str | None) -> list[str]:
    """Addresses of the videos in both. (Copies are found that kept their names, see `glance`.)"""
    known = {video.uri for video in searched.videos}
    names = {storage.name(uri) for uri in known}
    # Footage that was prepared may no longer be where it was.
    there = (uri for uri in known if storage.exists(uri, endpoint))
    namesakes = [v.uri for v in others.videos if storage.name(v.uri) in names]
    contents = {content_digest([uri], endpoint) for uri in there} if namesakes else set()
    copies = {uri for uri in namesakes if content_digest([uri], endpoint) in contents}
    return [video.uri for video in others.videos if video.uri in known | copies]


def check_best(
    cfg: JobConfig,
    params: dict[str, float],
    searched: Manifest,
    others: Manifest,
    seeds: int,
    on_seed: Callable[[int, float, float], None] = lambda seed, configured, found: None,
) -> Check:
    """Train with the configured weights and with `params`, from `seeds` other seeds; score both.

    `searched`: the search's own footage, which is trained on; `others`: see `other_footage`.
    `on_seed` sees every seed's scores as they come. Needs a connected Ray; raises as
    `trial_objective` does, and TrialError without any seeds.
    """
    if seeds < 1:
        raise TrialError(f"a check needs at least one seed, not {seeds}")
    server = tracking_uri(cfg) if (cfg.model.init or "").startswith("models:/") else None
    config, weights, _ = initial_weights(cfg, server)
    rows = plan_clips(
        others,
        cfg.data.model_copy(update={"flip": False}),
        cfg.seed + 2,
        0,
        clips=CLIPS_PER_VIDEO * len(others.videos),
        objects=object_sequences(cfg.data),
    )
    prepare, decode, train = (
        ray.remote(task).options(**trial_options(cfg)) for task in (prepare_trials, _decode, _score)
    )
    failures = watch_failures(cfg, searched)
    clips = decode.remote(rows, others.videos, cfg.data, watch_failures(cfg, others))
    jobs = []
    first = cfg.seed + cfg.tune.seeds  # (those before it are the search's)
    single = cfg.tune.model_copy(update={"seeds": 1})
    for seed in range(first, first + seeds):
        own = cfg.model_copy(update={"seed": seed, "tune": single})
        start = prepare.remote(own, searched, config, weights, failures)
        both = (train.remote(start, clips, p, own, failures) for p in ({}, params))
        jobs.append((seed, *both))
    scores = []
    for seed, *pair in jobs:
        try:
            scores.append(tuple(ray.get(pair)))
        except ray.exceptions.RayError as error:  # (a process may also just die)
            cause = getattr(error, "cause", None) or error
            raise TrialError(f"the check failed: {cause}") from error
        on_seed(seed, *scores[-1])
    return Check(*(tuple(column) for column in zip(*scores, strict=True)), len(others.videos))


def _decode(
    rows: Sequence[ClipRow], videos: Sequence[VideoRow], data: DataConfig, failures: Failures
) -> tuple[Clip, ...]:
    return tuple(trial_clips(rows, videos, data, failures))


def _score(
    start: TrialStart,
    clips: tuple[Clip, ...],
    params: dict[str, float],
    cfg: JobConfig,
    failures: Failures,
) -> float:
    return trial_score(replace(start, scored=clips), params, cfg, failures=failures)
