"""Decode a bucket of videos once, where it will be read for many epochs.

    python jobs/prepare.py --config jobs/configs/paper.yaml --output s3://bucket/prepared
    python jobs/train_all.py --config jobs/configs/paper.yaml --set data.prepared=s3://bucket/prepared

Frames are scaled to just cover data.height x data.width and kept as JPEG in Parquet shards. The
same command goes on where an interrupted one stopped, and prepares anew what was replaced since.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

from command_line import connect, job_parser, run_job

from pipelines.config import ConfigError, JobConfig
from pipelines.config_types import absolute
from pipelines.prepare import prepare


def main(cfg: JobConfig, options: Namespace) -> int:
    if not (options.output or cfg.data.prepared):
        raise ConfigError("where to? Give --output FOLDER, or data.prepared in the configuration")
    output = absolute(options.output or cfg.data.prepared)
    if not 1 <= options.quality <= 100:
        raise ConfigError(f"--quality {options.quality}: JPEG knows 1 to 100")
    connect()
    data = cfg.data.model_copy(update={"prepared": None})
    index = prepare(data, output, options.quality, say=partial(print, flush=True))
    for bad in index.rejected:
        print(f"left out ({bad.reason}): {bad.message}")
    frames = sum(video.frames for video in index.videos)
    print(f"{output}: {len(index.videos)} videos, {frames} frames, digest {index.digest}")
    print(f"train with --set data.prepared={output}")
    return 0


if __name__ == "__main__":
    parser = job_parser(__doc__)
    parser.add_argument("--output", metavar="FOLDER", help="local or s3://; default: data.prepared")
    parser.add_argument("--quality", type=int, default=95, metavar="N", help="of JPEG, 1 to 100")
    sys.exit(run_job(main, parser))
