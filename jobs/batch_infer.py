"""Complete every video of a folder or bucket with a registered model.

    python jobs/batch_infer.py --config jobs/configs/demo.yaml --videos URI --masks URI --output URI

Run it again after an interruption: what is published and still fits is not done again. Exit code 1
if nothing could be completed; single failures are named in the summary.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from command_line import connect, job_parser, run_job

from pipelines.batch import complete_bucket
from pipelines.batch_record import VideoOutcome
from pipelines.config import JobConfig


def batch_infer(cfg: JobConfig, options: Namespace) -> int:
    connect()
    summary = complete_bucket(cfg, options.model, on_video=show)
    print(f"\n{summary.text()}")
    return 1 if summary.count("failed") == len(summary.outcomes) else 0


def show(outcome: VideoOutcome, position: int, total: int) -> None:
    details = f"{outcome.frames} frames, {outcome.seconds:.1f} s"
    if outcome.status == "failed":
        details = f"{outcome.reason}: {outcome.message}"
    elif outcome.hole_psnr == outcome.hole_psnr:
        details += f", hole PSNR {outcome.hole_psnr:.2f} dB"
    print(f"[{position}/{total}] {outcome.status} {outcome.name}: {details}", flush=True)


def overrides(options: Namespace) -> list[str]:
    """The options that stand for a key of the configuration."""
    given = {key: getattr(options, key) for key in ("videos", "masks", "output")}
    # (JSON is YAML that no colon or hash in a name can confuse)
    return [f"inference.{key}={json.dumps(value)}" for key, value in given.items() if value]


if __name__ == "__main__":
    parser = job_parser(__doc__)
    parser.add_argument("--videos", help="input folder or URI (inference.videos)")
    parser.add_argument("--masks", help="mask folder or file (inference.masks)")
    parser.add_argument("--output", help="output folder or URI (inference.output)")
    parser.add_argument("--model", help="folder or models:/ URI; default: the registry's alias")
    sys.exit(run_job(batch_infer, parser, overrides))
