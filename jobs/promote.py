"""Let a candidate take over as champion if it is measurably better, or bring the earlier one back.

    python jobs/promote.py --config jobs/configs/demo.yaml [--margin 0.1]
    python jobs/promote.py --config jobs/configs/demo.yaml --rollback

Both are evaluated on the same footage (`evaluate.videos`, else what is held out of `data.videos`),
unless that was done before. Batch jobs that run keep the version that they started with. Exit code
1 if nothing was promoted.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from command_line import connect, job_parser, run_job

from pipelines.config import JobConfig
from pipelines.evaluate import evaluate_model
from pipelines.promote import CANDIDATE, MARGIN, METRIC, promote, rollback


def decide(cfg: JobConfig, options: Namespace) -> int:
    alias = f"models:/{cfg.registry.name}@{cfg.registry.alias}"
    if options.rollback:
        now, before = rollback(cfg)
        print(f"{alias} is version {now} again, after version {before}")
        return 0

    def evaluate(folder: Path) -> dict[str, float]:
        connect()
        print(f"evaluating {folder.name}", flush=True)
        return evaluate_model(cfg, folder).metrics()

    decision = promote(
        cfg,
        evaluate,
        candidate=options.candidate,
        metric=options.metric,
        margin=options.margin,
        commit=not options.dry_run,
    )
    print(decision.text() + (" (dry run: nothing was changed)" if options.dry_run else ""))
    return 0 if decision.promoted else 1


def main(argv: list[str] | None = None) -> int:
    parser = job_parser(__doc__)
    parser.add_argument("--candidate", default=CANDIDATE, help="alias or number of a version")
    parser.add_argument("--metric", default=METRIC, help=f"of the evaluation (default: {METRIC})")
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help=f"it must be higher by (default: {MARGIN})"
    )
    parser.add_argument("--rollback", action="store_true", help="the champion before this one")
    parser.add_argument("--dry-run", action="store_true", help="measure and tell, change nothing")
    return run_job(decide, parser, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
