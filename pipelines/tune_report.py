"""A search in MLflow: a child run per trial, and plots of the whole study."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from pipelines.tracking import JobRun

if TYPE_CHECKING:
    from pipelines.tune import TrialRow

logger = logging.getLogger(__name__)

PLOTS = {
    "history": "plot_optimization_history",
    "importance": "plot_param_importances",
    "intermediate": "plot_intermediate_values",
    "slices": "plot_slice",
}


def log_trial(run: JobRun, row: TrialRow) -> None:
    """A child run of the search's MLflow run for one trial: FINISHED, KILLED (pruned) or FAILED."""
    try:
        child = run.stage(f"trial-{row.number}")
    except Exception as error:  # a tracker that is away must not end the search
        logger.warning("trial %d is not in MLflow: %s", row.number, error)
        return
    child.log_params(row.params)
    for step, score in row.history:
        child.log_step({"intermediate_score": score}, step)
    scored = {} if row.message or row.pruned_at else {"score": row.score}
    child.log_metrics({"seconds": row.seconds} | scored)
    if row.message:
        child.set_tags({"error": row.message})
    if row.pruned_at:
        child.set_tags({"pruned_at": row.pruned_at})
    child.finish("FAILED" if row.message else "KILLED" if row.pruned_at else "FINISHED")


def log_study(run: JobRun, study: optuna.Study) -> None:
    """Plots as the artifacts plots/*.png of the search's run."""
    with tempfile.TemporaryDirectory() as folder:
        for path in draw_study(study, Path(folder)):
            run.log_file(path, "plots")


def draw_study(study: optuna.Study, folder: Path) -> list[Path]:
    """PNG pictures of the study in a folder; none before two trials have finished."""
    if len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) < 2:
        return []  # (Optuna would draw empty frames)
    os.environ.setdefault("MPLBACKEND", "Agg")  # (there is no screen)
    import optuna.visualization.matplotlib as drawing

    drawn = []
    for name, function in PLOTS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                axes = getattr(drawing, function)(study)
            figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
            figure.savefig(folder / f"{name}.png", bbox_inches="tight")
            figure.clear()
        except (ValueError, RuntimeError, ImportError) as error:  # (or trials all alike)
            logger.warning("no plot of the study's %s: %s", name, error)
        else:
            drawn.append(folder / f"{name}.png")
    return drawn
