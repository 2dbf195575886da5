"""What `jobs/evaluate.py` was asked for, by a protocol."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from cssta.evaluation.choice import choose_protocol, named
from cssta.evaluation.html_report import write_evaluation
from cssta.evaluation.perceptual import Networks
from pipelines.config import JobConfig
from pipelines.eval_summary import describe_score
from pipelines.evaluate_protocol import evaluate_protocol, flat_metrics


def by_protocol(
    cfg: JobConfig, options: Namespace, folder: Path | None, methods: list[str], scratch: Path
) -> tuple[dict[str, float], str, list[Path]]:
    """Metrics for MLflow, a table in Markdown, and the files written into `scratch`.

    `folder`: of the model, None where no method needs one. Raises ChoiceError and VideoError.
    """
    table, given = options.table, bool(options.masks)
    found, pictures = evaluate_protocol(
        cfg,
        folder,
        options.data or cfg.evaluate.videos or cfg.data.videos,
        choose_protocol(options.protocol, table, options.holes, cfg.seed, given),
        methods,
        pictures=scratch / "pictures",
        longest=options.frames,
        mask_folder=options.masks,
        results=named(options.results),
        networks=Networks(options.lpips, options.vfid),
        table=table,
        on_sequence=say,
    )
    return flat_metrics(found), found.markdown(), write_evaluation(found, scratch, pictures)


def say(what: object, done: int, total: int) -> None:
    """A line of progress."""
    text = what if isinstance(what, str) else describe_score(what)
    print(f"[{done}/{total}] {text}", flush=True)
