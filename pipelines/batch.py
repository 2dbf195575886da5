"""Complete every video of a bucket: plan on the driver, a pool of model-holding actors, a summary.

Rows on the wire are plain strings, one video each; pixels never leave the actor that decodes them.
A rerun skips what is published and still fits (see `pipelines.batch_plan`), so a job that was
killed is simply started again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.actors import (
    CRASHED,
    LoadEngine,
    ModelActor,
    load_inpainter,
    map_rows,
    model_digest,
    pack_model,
)
from pipelines.batch_plan import SHEETS, plan_batch
from pipelines.batch_record import ModelIdentity, VideoOutcome, VideoTask
from pipelines.complete_video import CompletionOptions, complete_video
from pipelines.config import JobConfig
from pipelines.registry import resolve
from pipelines.storage import join, publish
from pipelines.tracking import tracking_uri

SUMMARY_NAME = "batch-summary.json"


@dataclass(frozen=True)
class BatchSummary:
    """What became of every video, in order of name."""

    outcomes: tuple[VideoOutcome, ...]
    output: str
    summary_file: str
    model: ModelIdentity
    seconds: float

    def count(self, status: str) -> int:
        """Videos with this status: done, skipped or failed."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def failures(self) -> list[VideoOutcome]:
        """The failed ones."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    @property
    def sheets(self) -> list[str]:
        """URIs of the contact sheets."""
        return [outcome.sheet for outcome in self.outcomes if outcome.sheet]

    def text(self) -> str:
        """The summary for a person: counts, what was not plain, where things are."""
        frames = sum(o.frames for o in self.outcomes if o.status == "done")
        lines = [
            f"{len(self.outcomes)} videos: {self.count('done')} done ({frames} frames), "
            f"{self.count('skipped')} skipped (already there), {self.count('failed')} failed, "
            f"in {self.seconds:.1f} s"
        ]
        for reason, number in sorted(Counter(o.reason for o in self.failures).items()):
            lines.append(f"failed, {reason}: {number}")
            lines += [f"  {o.name}: {o.message}" for o in self.failures if o.reason == reason]
        lines += [
            f"note, {o.reason}: {o.name}: {o.message}"
            for o in self.outcomes
            if o.status == "done" and o.reason
        ]
        lines.append(f"model: {self.model.describe()}")
        lines.append(f"completed videos: {self.output}")
        lines += [f"contact sheet: {sheet}" for sheet in self.sheets]
        lines.append(f"summary: {self.summary_file}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        statuses = ("done", "skipped", "failed")
        return {
            "model": vars(self.model),
            "output": self.output,
            "seconds": self.seconds,
            "counts": {status: self.count(status) for status in statuses},
            "failures_by_reason": dict(Counter(o.reason for o in self.failures)),
            "videos": [outcome.to_dict() for outcome in self.outcomes],
        }


def complete_bucket(
    cfg: JobConfig,
    model: str | Path | None = None,
    *,
    on_video: Callable[[VideoOutcome, int, int], None] | None = None,
    load_engine: LoadEngine = load_inpainter,
) -> BatchSummary:
    """Complete the videos of `cfg.inference.videos` into `cfg.inference.output`.

    `model`: a folder or `models:/` URI; None takes the registry's alias. It is resolved once, here:
    a later promotion does not reach a running batch. `on_video(outcome, position, total)` sees each
    video as it ends. Needs a connected Ray. Raises BatchError, EmptyBucketError or
    RegistryError when the batch cannot start; a bad video never raises, it is an outcome.
    """
    started = time.monotonic()
    source = str(model or f"models:/{cfg.registry.name}@{cfg.registry.alias}")
    server = tracking_uri(cfg) if source.startswith("models:/") else None
    folder, version = resolve(source, server)
    files = pack_model(folder)
    identity = ModelIdentity(source, version, model_digest(files))
    plan = plan_batch(cfg, identity)
    total = len(plan.tasks) + len(plan.settled)
    outcomes: list[VideoOutcome] = []

    def settle(outcome: VideoOutcome) -> None:
        outcomes.append(outcome)
        if on_video:
            on_video(outcome, len(outcomes), total)

    for outcome in plan.settled:
        settle(outcome)
    if plan.tasks:
        rows = [{"task": json.dumps(vars(task))} for task in plan.tasks]
        # Of killed processes too, nothing remains here when the job ends.
        with tempfile.TemporaryDirectory(prefix="cssta-batch-") as scratch:
            options = CompletionOptions(
                identity, cfg.data.masks, cfg.inference.crf, cfg.data.s3_endpoint, scratch
            )
            # (A video that fails keeps none of the others from a contact sheet.)
            sheets = SHEETS - sum(bool(outcome.sheet) for outcome in plan.settled)
            completed = map_rows(cfg, rows, Completer, options, files, load_engine, sheets)
            for row in completed.iter_rows():
                settle(VideoOutcome.from_dict(json.loads(row["outcome"])))
    output = cfg.inference.output.rstrip("/")
    summary = BatchSummary(
        outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome.name)),
        output=output,
        summary_file=join(output, SUMMARY_NAME),
        model=identity,
        seconds=time.monotonic() - started,
    )
    _publish_summary(summary, cfg.data.s3_endpoint)
    return summary


class Completer(ModelActor):
    """Actor that completes one video per call; its settings are CompletionOptions.

    The first videos to be completed get a contact sheet: each claims a place for it.
    """

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task = VideoTask(**json.loads(row["task"]))
        if not self.may_start(task.name):
            outcome = VideoOutcome(task.name, task.video, task.output, "failed")
            outcome = replace(outcome, reason="crashed", message=CRASHED)
        else:
            claim = partial(self.claim, task.name)
            outcome = complete_video(task, self.engine, self.settings, claim)
        return {"outcome": json.dumps(outcome.to_dict())}


def _publish_summary(summary: BatchSummary, s3_endpoint: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="cssta-batch-") as folder:
        path = Path(folder) / SUMMARY_NAME
        path.write_text(json.dumps(summary.to_dict(), indent=1, allow_nan=False), encoding="utf-8")
        publish(path, summary.summary_file, s3_endpoint)
