"""The end of a batch: contact sheets, report, ledger, summary, and its run in MLflow."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.batch_ledger import write_ledger
from pipelines.batch_names import LEDGER, REPORT, SUMMARY, WORK
from pipelines.batch_plan import Plan
from pipelines.batch_record import ModelIdentity, VideoOutcome
from pipelines.batch_report import log_to_mlflow, write_report
from pipelines.batch_sheets import choose_sheets, draw_sheet
from pipelines.batch_source import BatchSettings
from pipelines.batch_summary import BatchSummary
from pipelines.config import JobConfig
from pipelines.retries import patiently
from pipelines.storage import StorageError, join, publish, write_bytes

log = logging.getLogger(__name__)


def publish_results(
    cfg: JobConfig,
    model: ModelIdentity,
    plan: Plan,
    outcomes: Sequence[VideoOutcome],
    settings: BatchSettings,
    started: float,
    call: Callable[[Callable, Sequence[tuple]], list],
    log_run: bool,
) -> BatchSummary:
    """Everything that tells of a batch, beside its outputs. Raises StorageError.

    `call(function, arguments)` runs the function for each of the arguments; results or errors.
    """
    endpoint, output = cfg.data.s3_endpoint, cfg.inference.output.rstrip("/")
    work = join(output, WORK, "results")
    ordered = sorted(outcomes, key=lambda outcome: outcome.name)
    ordered = [replace(outcome, sheet="") for outcome in ordered]
    with tempfile.TemporaryDirectory(prefix="cssta-report-") as folder:
        pictures: dict[str, Path] = {}
        chosen = choose_sheets(ordered, cfg.inference.sheets)
        drawn = call(draw_sheet, [(plan.all_tasks[o.name], o.output) for o in chosen])
        for number, (outcome, picture) in enumerate(zip(chosen, drawn, strict=True)):
            if isinstance(picture, Exception):
                log.warning("%s: no contact sheet: %s", outcome.name, picture)
                continue
            path = Path(folder) / f"sheet-{number}.png"
            path.write_bytes(picture)
            sheet = plan.all_tasks[outcome.name].sheet
            try:
                patiently(lambda p=path, sheet=sheet: publish(p, sheet, endpoint, work))
            except StorageError as error:
                log.warning("%s: no contact sheet: %s", outcome.name, error)
                continue
            pictures[outcome.name] = path
        ordered = [
            replace(o, sheet=plan.all_tasks[o.name].sheet if o.name in pictures else "")
            for o in ordered
        ]
        seconds = time.monotonic() - started
        report, ledger = Path(folder) / REPORT, Path(folder) / LEDGER
        write_report(
            report,
            ordered,
            model=model,
            seconds=seconds,
            title=f"Batch {cfg.name}",
            worst=[(o.name, pictures[o.name]) for o in chosen if o.name in pictures],
            limits=dict(settings.limits),
            facts={"completed videos": output, "ledger": join(output, LEDGER)},
        )
        write_ledger(ordered, ledger)
        for path in (report, ledger):
            patiently(lambda p=path: publish(p, join(output, p.name), endpoint, work))
        run_id = None
        if log_run:
            files = (report, ledger)
            run_id = log_to_mlflow(cfg, ordered, model=model, seconds=seconds, files=files)
    summary = BatchSummary(
        outcomes=tuple(ordered),
        output=output,
        summary_file=join(output, SUMMARY),
        model=model,
        seconds=seconds,
        report=join(output, REPORT),
        ledger=join(output, LEDGER),
        run_id=run_id,
    )
    content = json.dumps(summary.to_dict(), indent=1, allow_nan=False).encode()
    patiently(lambda: write_bytes(content, summary.summary_file, endpoint, work))
    return summary
