"""Tables 3 and 4 of the paper: train every variant on an equal budget, score all on the same holes.

    python jobs/ablate.py --config jobs/configs/ablation.yaml --data DAVIS
    ray job submit --working-dir . -- python jobs/ablate.py --config ... --data s3://bucket/DAVIS

Run again, it goes on where it was interrupted. The models stay in `<storage>/<name>/ablation/`.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path

from command_line import connect, job_parser, run_job

from cssta.evaluation.html_report import write_evaluation
from pipelines.ablation import ablate
from pipelines.config import JobConfig
from pipelines.evaluate_protocol import flat_metrics
from pipelines.storage import join, publish
from pipelines.tracking import JobRun


def main(cfg: JobConfig, options: Namespace) -> int:
    connect()
    tables = [options.table] if options.table else [3, 4]
    with JobRun.start(cfg, job="ablation") as run, tempfile.TemporaryDirectory() as scratch:
        scored = ablate(
            cfg,
            options.data or cfg.evaluate.videos,
            tables,
            pictures=Path(scratch),
            longest=options.frames,
            run=run,
            say=partial(print, flush=True),
        )
        for table, (evaluation, pictures) in scored.items():
            run.log_metrics({f"table{table}_{k}": v for k, v in flat_metrics(evaluation).items()})
            folder = f"table-{table}"
            print(f"\n{evaluation.markdown()}")
            for file in write_evaluation(evaluation, Path(scratch) / folder, pictures):
                target = join(cfg.cluster.storage, cfg.name, "ablation", folder, file.name)
                publish(file, target, cfg.data.s3_endpoint)
                run.log_file(file, folder)
                print(f"written: {target}")
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    return 0


if __name__ == "__main__":
    parser = job_parser(__doc__)
    parser.add_argument("--data", help="DAVIS, YouTube-VOS or a folder (default: evaluate.videos)")
    parser.add_argument("--table", type=int, choices=(3, 4), help="(default: both)")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N of each sequence")
    sys.exit(run_job(main, parser))
