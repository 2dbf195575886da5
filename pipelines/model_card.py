"""What stands in a trained model's README.md: trained on what, for how long, on which machine.

Captions of evaluations quote it (`cssta.evaluation.provenance`). It says nothing that a second run
of the same job, whose stages are reused, would say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import ray

from cssta.evaluation.provenance import cpu_name
from pipelines import storage
from pipelines.config import JobConfig
from pipelines.train_stage import StageResult, Videos

CARD = "README.md"
# The paper trained for four days on four GPUs; `paper.yaml`'s inpainter takes 66,780 steps.
SHORT_STEPS = 10_000


def model_card(
    cfg: JobConfig, start: str, stages: Sequence[StageResult], videos: Videos, title: str = ""
) -> str:
    """Markdown. `start`: where the weights are from. Needs a connected Ray."""
    data, losses = cfg.data, cfg.losses
    settings = {stage.name: getattr(cfg.stages, stage.name) for stage in stages}
    rows = {
        "training footage": f"{storage.name(data.videos)}, {_count(videos.training.videos)}; "
        f"clips of {data.references + 1} frames at {data.width}x{data.height}",
        "held out": _count(videos.held_out.videos),
        "masks": f"{data.masks.kind}, {data.masks.ratio[0]:.0%} to {data.masks.ratio[1]:.0%}",
        "started from": f"{start} weights" if start == "random" else start,
        "steps": "; ".join(f"{name} {part.steps:,}" for name, part in settings.items()),
        "batches": "; ".join(
            f"{name} {part.batch_size} x {cfg.cluster.workers} workers"
            for name, part in settings.items()
        ),
        "time": "; ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in stages),
        "losses": f"lambda_R {losses.lambda_r:g}, lambda_F {losses.lambda_f:g}, "
        f"lambda_G {losses.lambda_g:g}, delta {losses.delta:g}",
        "machine": _machines(),
    }
    lines = [f"# {title or cfg.name}", ""]
    steps = settings["inpainter"].steps if "inpainter" in settings else 0
    if steps < SHORT_STEPS:
        lines += [
            f"**A short run**: {steps:,} steps of the inpainter. Its figures say little about "
            "what the method can do.",
            "",
        ]
    lines += ["| | |", "| --- | --- |", *(f"| {key} | {text} |" for key, text in rows.items())]
    return "\n".join(lines) + "\n"


def _count(videos: Sequence) -> str:
    return f"{len(videos)} video{'' if len(videos) == 1 else 's'}"


def _machines() -> str:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    kinds = {
        key.removeprefix("accelerator_type:")
        for node in nodes
        for key in node
        if key.startswith("accelerator_type:")
    }
    cpus = sum(node.get("CPU", 0) for node in nodes)
    what = f"{gpus:g} GPUs ({', '.join(sorted(kinds)) or 'of unknown kind'})" if gpus else "no GPU"
    plural = "s" if len(nodes) != 1 else ""
    return f"{len(nodes)} node{plural}, {cpus:g} CPUs ({cpu_name()} at the head), {what}"
