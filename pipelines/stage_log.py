"""What a stage's controller does with what workers report, and with why they fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ray.train import UserCallback

from pipelines import storage
from pipelines.failures import Failures
from pipelines.progress import Progress
from pipelines.storage import StorageError
from pipelines.tracking import StageRun
from pipelines.train_loop import PICTURE, StageTask

logger = logging.getLogger(__name__)


class StageLog(UserCallback):
    """Passes what workers report to MLflow and to the job's output; runs in the controller."""

    def __init__(self, run: StageRun, task: StageTask, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.name, self.steps, self.checkpoints = task.name, task.stage.steps, task.checkpoints

    def after_report(self, run_context, metrics, checkpoint) -> None:
        report = _mean_of_workers(metrics)
        step = int(report.pop("step"))
        self.run.log_step(report, step)
        shown = ("loss", "validation_hole_psnr", "steps_per_second", "data_wait_share")
        text = "  ".join(f"{key} {report[key]:.3g}" for key in shown if key in report)
        self.progress.say(f"  {self.name} {step}/{self.steps}  {text}")
        if "validation_psnr" in report:
            self._log_picture(step)

    def _log_picture(self, step: int) -> None:
        picture = storage.join(self.checkpoints.folder(step), PICTURE)
        try:
            with storage.local_copy(picture, s3_endpoint=self.checkpoints.s3_endpoint) as path:
                self.run.log_file(path, f"pictures/step-{step:06d}")
        except StorageError as error:  # (of a checkpoint that could not be kept)
            logger.warning("no picture of step %d: %s", step, error)


def _mean_of_workers(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the workers that have the value; what only the first measures is its own."""
    found = {key: [report[key] for report in reports if key in report] for key in reports[0]}
    return {key: sum(values) / len(values) for key, values in found.items()}


class FailureLimit(UserCallback):
    """Ends a stage whose workers fail for too many bad files, which no restart would mend."""

    def __init__(self, failures: Failures | None) -> None:
        self.failures = failures

    def after_exception(self, run_context, worker_exceptions) -> None:
        """Raises TooManyFailuresError, after which Ray Train starts nothing again."""
        if self.failures is not None:
            self.failures.check()
