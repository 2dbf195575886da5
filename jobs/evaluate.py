"""Measure a model on held-out videos beside OpenCV's Telea: PSNR, SSIM, hole PSNR.

python jobs/evaluate.py --config jobs/configs/demo.yaml --model models:/cssta@champion
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from command_line import connect, job_parser, run_job

from pipelines.batch_record import describe_model
from pipelines.config import JobConfig
from pipelines.eval_summary import ClipScore
from pipelines.evaluate import evaluate_model
from pipelines.manifest import Rejected
from pipelines.registry import resolve
from pipelines.storage import join, publish
from pipelines.tracking import JobRun, tracking_uri


def evaluate(cfg: JobConfig, options: Namespace) -> int:
    source = options.model or f"models:/{cfg.registry.name}@{cfg.registry.alias}"
    folder, version = resolve(source, tracking_uri(cfg) if source.startswith("models:/") else None)
    connect()
    with JobRun.start(cfg, job="evaluate") as run:
        run.set_tags({"model": source, "model_version": version})
        summary = evaluate_model(cfg, folder, on_video=show)
        run.log_metrics(summary.metrics())
        target = join(cfg.cluster.storage, cfg.name, "evaluation")
        with tempfile.TemporaryDirectory() as scratch:
            for file in summary.write(Path(scratch)):
                run.log_file(file)
                publish(file, join(target, file.name), cfg.data.s3_endpoint)
    print(f"\nmodel: {describe_model(source, version)}\n\n{summary.markdown()}")
    print(f"table: {join(target, 'evaluation.md')}\nnumbers: {join(target, 'evaluation.json')}")
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    return 0 if summary.videos else 1


def show(result: ClipScore | Rejected, position: int, total: int) -> None:
    if isinstance(result, Rejected):
        text = f"failed ({result.reason}): {result.message}"
    else:
        model, telea = (result.scores[f"{name}_hole_psnr"] for name in ("cssta", "telea"))
        text = f"{result.video}: hole PSNR {model:.2f} dB, Telea {telea:.2f} dB"
    print(f"[{position}/{total}] {text}", flush=True)


if __name__ == "__main__":
    parser = job_parser(__doc__)
    parser.add_argument("--model", help="folder or models:/ URI; default: the registry's alias")
    sys.exit(run_job(evaluate, parser))
