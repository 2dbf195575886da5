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

from cssta.evaluation.methods import PARTS
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
        scored: dict[str, tuple[Evaluation, dict[str, Path]]] = {}
        for one in wanted:
            say(f"scoring: {one.name}")
            # (Both tables are by one protocol; the first asks most of the full method.)
            paper = TABLES[min(set(one.tables) & set(tables))]
            scored[one.name] = evaluate_protocol(
                cfg,
                folders[one.name],
                data,
                protocol(paper.protocol, paper.holes, cfg.seed),
                paper.methods if one == FULL else paper.others,
                pictures=pictures / _slug(one.name),
                longest=longest,
                label=one.name,
                on_sequence=lambda text, *of: say(f"  [{of[0]}/{of[1]}] {text}"),
            )
    return {
        table: merge(table, [(one, *scored[one.name]) for one in wanted if table in one.tables])
        for table in tables
    }


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
    table: int, parts: Sequence[tuple[Variant, Evaluation, dict[str, Path]]]
) -> tuple[Evaluation, dict[str, Path]]:
    """One table of several variants' evaluations; what all captions say is said once."""
    paper, first = TABLES[table], parts[0][1]
    scores = []
    for variant, evaluation, _ in parts:
        methods = paper.methods if variant == FULL else paper.others
        names = {f"{variant.name}: {method}" for method in methods}
        scores += [score for score in evaluation.scores if score.method in names]
    order = {name: number for number, name in enumerate(first.sequences)}
    lines = [line for _, evaluation, _ in parts for line in evaluation.caption]
    caption = [line for line in dict.fromkeys(lines) if not line.startswith("Methods: ")]
    caption += [
        "Methods: " + "; ".join(f"{part}: {PARTS[part]}" for part in paper.methods) + ".",
        "Ablations are the same training job with one key changed, of equal budget, from random "
        "weights: " + "; ".join(variant.describe() for variant, *_ in parts) + ".",
    ]
    pictures = {
        f"{variant.name}; {title}": path
        for variant, _, drawn in parts
        for title, path in drawn.items()
    }
    failed = dict.fromkeys(text for _, evaluation, _ in parts for text in evaluation.failed)
    whole = replace(
        first,
        title=paper.title,
        caption=tuple(caption),
        scores=tuple(sorted(scores, key=lambda score: order.get(score.sequence, len(order)))),
        published=paper.rows,
        failed=tuple(failed),
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
