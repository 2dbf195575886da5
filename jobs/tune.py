"""Search for the loss weights lambda_r, lambda_f, lambda_g and delta.

    python jobs/tune.py --config jobs/configs/demo.yaml --set tune.trials=20

Finished trials are kept in the study's database: after an interruption run the same command again.
`jobs/train_all.py --best-of STUDY` trains with the best weights found.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from command_line import connect, job_parser, run_job

from pipelines.config import JobConfig
from pipelines.tracking import JobRun
from pipelines.trial import trial_objective
from pipelines.tune import TrialRow, log_trial, search


def tune(cfg: JobConfig, options: Namespace) -> None:
    connect()
    print(f"study {cfg.tune.study}: up to {cfg.tune.trials} trials of {cfg.tune.steps} steps")
    objective = trial_objective(cfg)
    with JobRun.start(cfg, job="tune") as run:

        def on_trial(row: TrialRow) -> None:
            weights = ", ".join(f"{key} {value:.4g}" for key, value in row.params.items())
            outcome = row.message or f"hole PSNR {row.score:.3f} dB"
            print(f"trial {row.number}: {outcome} ({weights}; {row.seconds:.1f} s)", flush=True)
            log_trial(run, row)

        summary = search(cfg, objective, on_trial=on_trial)
        run.log_metrics({"best_score": summary.best_score, "trials": summary.finished})
        if summary.best_file:
            run.log_file(summary.best_file)
    print(summary.text())
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    print(f"train with it: python jobs/train_all.py --best-of {cfg.tune.study} --config ...")


if __name__ == "__main__":
    sys.exit(run_job(tune, job_parser(__doc__)))
