"""Train IM2IM, inpainter and temporal network, evaluate, register, and complete a bucket of videos.

    python jobs/train_all.py --config jobs/configs/demo.yaml --set data.videos=FOLDER
    ray job submit --working-dir . -- python jobs/train_all.py --config jobs/configs/paper.yaml

The same command goes on where an interrupted job stopped. `--losses FILE` takes the loss weights
that jobs/tune.py wrote, `--best-of STUDY` the best so far in its database.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

from command_line import connect, job_parser, run_job

from pipelines.config import JobConfig
from pipelines.study import best_params, study_storage
from pipelines.train_all import train_all
from pipelines.tuned_losses import read_losses


def main(cfg: JobConfig, options: Namespace) -> int:
    source = options.losses or (options.best_of and f"study {options.best_of}")
    if source:
        found = (
            read_losses(options.losses, cfg.data.s3_endpoint)
            if options.losses
            else best_params(study_storage(cfg), options.best_of)
        )
        weights = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
        print(f"loss weights of {source}: {weights}", flush=True)
        losses = cfg.losses.model_copy(update=found)
        cfg = cfg.model_copy(update={"losses": losses})
    connect()
    summary = train_all(cfg, say=partial(print, flush=True))
    print(f"\n{summary.text()}", flush=True)
    return 0


if __name__ == "__main__":
    parser = job_parser(__doc__)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--losses", metavar="FILE", help="loss weights that jobs/tune.py wrote")
    weights.add_argument("--best-of", metavar="STUDY", help="loss weights from this Optuna study")
    sys.exit(run_job(main, parser))
