"""Search for the loss weights lambda_r, lambda_f, lambda_g and delta.

    python jobs/tune.py --config jobs/configs/demo.yaml --set tune.trials=20

Finished trials are kept in the study's database: after an interruption run the same command again.
`jobs/train_all.py --losses FILE` trains with the best weights found.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

import numpy as np
from command_line import connect, job_parser, run_job

from pipelines.config import JobConfig
from pipelines.config_types import absolute
from pipelines.footage import find_footage
from pipelines.storage import local_copy
from pipelines.tracking import JobRun
from pipelines.trial import trial_objective
from pipelines.tune import TrialRow, search
from pipelines.tune_check import check_best, other_footage
from pipelines.tune_report import log_study, log_trial


def on_seed(seed: int, configured: float, found: float) -> None:
    line = f"{configured:.3f} dB as configured, {found:.3f} dB with the best"
    say(f"check, seed {seed}: hole PSNR {line}")


def say(line: str) -> None:
    print(line, flush=True)


def tune(cfg: JobConfig, options: Namespace) -> None:
    connect()
    say(f"study {cfg.tune.study}: up to {cfg.tune.trials} trials of {cfg.tune.steps} steps")
    searched = find_footage(cfg.data)
    say(f"{cfg.data.prepared or cfg.data.videos}: {searched.describe()}")
    # (What is wrong with the check is told now, not after the search.)
    others = other_footage(cfg, searched, absolute(options.check)) if options.check else None
    objective = trial_objective(cfg, searched)
    with JobRun.start(cfg, job="tune") as run:

        def on_trial(row: TrialRow) -> None:
            weights = ", ".join(f"{key} {value:.4g}" for key, value in row.params.items())
            outcome = row.message or f"hole PSNR {row.score:.3f} dB"
            outcome += f", pruned at step {row.pruned_at}" if row.pruned_at else ""
            say(f"trial {row.number}: {outcome} ({weights}; {row.seconds:.1f} s)")
            log_trial(run, row)

        summary = search(
            cfg,
            objective,
            inputs=objective.inputs,
            on_trial=on_trial,
            on_study=partial(log_study, run),
            say=say,
        )
        run.log_metrics({"best_score": summary.best_score, "trials": summary.finished})
        with local_copy(summary.best_file, s3_endpoint=cfg.data.s3_endpoint) as best:
            run.log_file(best)
        for bad in objective.failures.list():
            say(f"rejected ({bad.reason}): {bad.message}")
        say(summary.text())
        if others is not None:
            check = check_best(cfg, summary.best_params, searched, others, options.seeds, on_seed)
            run.log_metrics({"check_gain": float(np.mean(check.gains))})
            run.set_tags({"check": check.text()})
            say(check.text())
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    print(f"train with it: python jobs/train_all.py --losses {summary.best_file} --config ...")


def at_least_one(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


if __name__ == "__main__":
    parser = job_parser(__doc__)
    parser.add_argument("--check", metavar="VIDEOS", help="compare the best with the configured "
                        "weights on these videos, which the search has not seen")  # fmt: skip
    parser.add_argument("--seeds", type=at_least_one, default=3, metavar="N",
                        help="trainings per side of the check, at least one")  # fmt: skip
    sys.exit(run_job(tune, parser))
