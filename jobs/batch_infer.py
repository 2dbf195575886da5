"""Complete every video of a folder, bucket or manifest with a registered model.

    python jobs/batch_infer.py --videos URI --masks URI --output URI --model models:/cssta@champion
    python jobs/batch_infer.py --config FILE --manifest list.csv --output URI

--masks is a folder with a mask for each video (for a/b.mov: a/b.mp4, a/b.png or a folder a/b/ of
pictures), one file for all, or a rule: s3://bucket/masks/{stem}_mask.png, in which {stem} is the
video's name without its ending, {name} with it and {parent} its folder below --videos; or
box:x,y,w,h in pixels, if need be from second t0 to t1 as box:x,y,w,h@t0-t1, for every video.

Run it again after an interruption: what is published and still fits is not done again, and long
videos go on after their last finished segment. Exit code 1 if nothing could be completed; single
failures are named in the summary and in the output's `_quarantine`. `--dry-run` only says what
would be done, how long it would take and what it would cost.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from functools import partial

from command_line import connect, job_parser, run_job

from pipelines.batch import complete_bucket
from pipelines.batch_dry_run import dry_run
from pipelines.batch_record import VideoOutcome
from pipelines.config import JobConfig

say = partial(print, flush=True)


def batch_infer(cfg: JobConfig, options: Namespace) -> int:
    connect()
    if options.dry_run:
        print(dry_run(cfg, options.model).text())
        return 0
    summary = complete_bucket(cfg, options.model, on_video=show, say=say, log_run=True)
    print(f"\n{summary.text()}")
    return 1 if summary.count("failed") == len(summary.outcomes) else 0


def show(outcome: VideoOutcome, position: int, total: int) -> None:
    details = f"{outcome.frames} frames, {outcome.seconds:.1f} s"
    if outcome.status == "failed":
        details = f"{outcome.reason}: {outcome.message}"
    elif outcome.review:
        details += f", {outcome.review}"
    elif outcome.hole_psnr == outcome.hole_psnr:
        details += f", hole PSNR {outcome.hole_psnr:.2f} dB"
    say(f"[{position}/{total}] {outcome.status} {outcome.name}: {details}")


def overrides(options: Namespace) -> list[str]:
    """The options that stand for a key of the configuration."""
    keys = ("videos", "masks", "output", "manifest", "price_per_hour", "verify")
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    if options.manifest:  # it, not the configuration's folder, says which videos
        given = {"videos": None, **given}
    # (JSON is YAML that no colon or hash in a name can confuse)
    return [f"inference.{key}={json.dumps(value)}" for key, value in given.items()]


if __name__ == "__main__":
    parser = job_parser(__doc__, needs_config=False)
    parser.add_argument("--videos", help="input folder or URI (inference.videos)")
    parser.add_argument("--masks", help="where the holes are, see above (inference.masks)")
    parser.add_argument("--output", help="output folder or URI (inference.output)")
    parser.add_argument(
        "--manifest",
        help="CSV, JSON lines or Parquet: columns video, mask, output, options; names in it are "
        "relative to --videos and --masks, else to itself (inference.manifest)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="read what is published again and hold it against its digest (inference.verify)",
    )
    parser.add_argument("--model", help="folder or models:/ URI; default: the registry's alias")
    parser.add_argument("--dry-run", action="store_true", help="plan and estimate, do nothing")
    parser.add_argument(
        "--price-per-hour", type=float, help="of one worker, for --dry-run (any currency)"
    )
    sys.exit(run_job(batch_infer, parser, overrides))
