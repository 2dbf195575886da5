"""Tables 3 and 4 of the paper: what a part of the method is worth, by leaving it out.

Every variant is the same training job with one key changed: the same videos, clips, masks, seed,
steps and auto-encoder, from random weights. Then all are scored on the same holes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssta.evaluation.protocols import protocol
from cssta.evaluation.published import TABLES
from cssta.evaluation.tables import Evaluation
from pipelines import storage
from pipelines.config import ConfigError, JobConfig
from pipelines.evaluate_protocol import evaluate_protocol
from pipelines.initial_weights import initial_weights
from pipelines.model_card import CARD, model_card
from pipelines.model_folder import write_model_folder
from pipelines.tracking import JobRun
from pipelines.train_all import find_videos
from pipelines.train_stage import StageResult, Videos, train_stage

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """`key`: the one changed key of the configuration, "" for none; `tables`: where it stands."""

    name: str
    key: str
    value: Any
    tables: tuple[int, ...]

    def of(self, cfg: JobConfig) -> JobConfig:
        """The configuration that this variant is trained with."""
        if not self.key:
            return cfg
        section, key = self.key.split(".")
        changed = getattr(cfg, section).model_copy(update={key: self.value})
        return cfg.model_copy(update={section: changed})

    def describe(self) -> str:
        """For a caption."""
        return f"{self.name}: {f'{self.key}={self.value}' if self.key else 'as configured'}"


FULL = Variant("full", "", None, (3, 4))
VARIANTS = (
    FULL,
    Variant("without the CSSTA layer", "model.attention", "none", (3,)),
    Variant("without inter-frame attention", "model.attention", "hole-region", (3,)),
    Variant("without hole-region attention", "model.attention", "inter-frame", (3,)),
    Variant("without FeatureLoss", "losses.lambda_f", 0.0, (4,)),
)


def ablate(
    cfg: JobConfig,
    data: str | None,
    tables: Sequence[int],
    *,
    pictures: Path,
    longest: int | None = None,
    run: JobRun,
    say: Say = print,
) -> dict[int, tuple[Evaluation, dict[str, Path]]]:
    """Train what the tables need (finished stages are reused) and score it on `data`.

    By table: the evaluation and its pictures. Model folders are kept under the job's folder, in
    `ablation/`. Needs a connected Ray. Raises ConfigError, or what training and evaluating raise.
    """
    if cfg.model.init is not None:
        raise ConfigError(
            "model.init: variants that start from trained weights say nothing about how they "
            "train; set it to null"
        )
    if data is None:
        raise ConfigError("evaluate.videos: is not set; name the data set to score on, or --data")
    wanted = [one for one in VARIANTS if set(one.tables) & set(tables)]
    videos = find_videos(cfg, say)
    with tempfile.TemporaryDirectory(prefix="cssta-ablation-") as scratch:
        folders = train_variants(cfg, wanted, videos, Path(scratch), run, say)
        scored: dict[int, tuple[Evaluation, dict[str, Path]]] = {}
        for table in tables:
            parts = []
            for one in (variant for variant in wanted if table in variant.tables):
                say(f"table {table}: {one.name}")
                paper = TABLES[table]
                methods = paper.methods if one == FULL else paper.others
                parts.append(
                    evaluate_protocol(
                        cfg,
                        folders[one.name],
                        data,
                        protocol(paper.protocol, paper.holes, cfg.seed),
                        methods,
                        pictures=pictures / f"{table}-{_slug(one.name)}",
                        longest=longest,
                        label=one.name,
                        table=table,
                        on_sequence=lambda text, *of: say(f"  [{of[0]}/{of[1]}] {text}"),
                    )
                )
            scored[table] = merge(parts, [one for one in wanted if table in one.tables])
    return scored


def train_variants(
    cfg: JobConfig,
    variants: Sequence[Variant],
    videos: Videos,
    scratch: Path,
    run: JobRun,
    say: Say,
) -> dict[str, Path]:
    """Model folders by variant, local; also published under the job's folder."""
    model, _, start = initial_weights(cfg, run.tracking_uri)
    say(f"im2im, for all variants: {cfg.stages.im2im.steps} steps")
    teacher = _stage(cfg, "im2im", model, {}, videos, run, "im2im", say)
    folders: dict[str, Path] = {}
    for variant in variants:
        chosen = variant.of(cfg)
        config, _, _ = initial_weights(chosen, run.tracking_uri)
        say(f"{variant.describe()}: {cfg.stages.inpainter.steps} steps")
        known = {"im2im": teacher.weights}
        trained = _stage(chosen, "inpainter", config, known, videos, run, variant.name, say)
        weights = {"im2im": teacher.weights, "inpainter": trained.weights}
        folder = write_model_folder(scratch / _slug(variant.name), config, weights)
        card = model_card(chosen, start, [teacher, trained], videos, variant.name)
        (folder / CARD).write_text(card, encoding="utf-8")
        for file in sorted(folder.iterdir()):
            target = storage.join(cfg.cluster.storage, cfg.name, "ablation", folder.name)
            storage.publish(file, storage.join(target, file.name), cfg.data.s3_endpoint)
        folders[variant.name] = folder
    return folders


def merge(
    parts: Sequence[tuple[Evaluation, dict[str, Path]]], variants: Sequence[Variant]
) -> tuple[Evaluation, dict[str, Path]]:
    """One table of several models' evaluations; what all captions say is said once."""
    first = parts[0][0]
    lines = [line for evaluation, _ in parts for line in evaluation.caption]
    budget = (
        "Ablations are the same training job with one key changed, of equal budget, from random "
        "weights: " + "; ".join(variant.describe() for variant in variants) + "."
    )
    scores = [score for evaluation, _ in parts for score in evaluation.scores]
    order = {name: number for number, name in enumerate(first.sequences)}
    pictures = {
        f"{variant.name}; {caption}": path
        for variant, (_, drawn) in zip(variants, parts, strict=True)
        for caption, path in drawn.items()
    }
    whole = replace(
        first,
        caption=(*dict.fromkeys(lines), budget),
        scores=tuple(sorted(scores, key=lambda s: order.get(s.sequence, len(order)))),
        failed=tuple(dict.fromkeys(text for one, _ in parts for text in one.failed)),
    )
    return whole, pictures


def _stage(
    cfg: JobConfig,
    stage: str,
    model: Any,
    known: dict[str, bytes],
    videos: Videos,
    run: JobRun,
    name: str,
    say: Say,
) -> StageResult:
    with run.stage(name) as stage_run:
        return train_stage(cfg, stage, model, known, videos, stage_run, say)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")
