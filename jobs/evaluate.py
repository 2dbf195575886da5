"""Measure a model: on held-out videos beside OpenCV's Telea, or by a named protocol.

python jobs/evaluate.py --config jobs/configs/demo.yaml --model models:/cssta@champion
python jobs/evaluate.py --config jobs/configs/paper.yaml --protocol e2fgvi --data /data/DAVIS

`--protocol` scores the same as `cssta evaluate`, sequences spread over the cluster.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from command_line import connect, job_parser, run_job

from cssta.evaluation.html_report import write_evaluation
from cssta.evaluation.methods import BASELINES
from cssta.evaluation.protocols import PROTOCOLS, protocol
from pipelines.batch_record import describe_model
from pipelines.config import JobConfig
from pipelines.eval_summary import ClipScore
from pipelines.evaluate import evaluate_model
from pipelines.evaluate_protocol import evaluate_protocol, flat_metrics
from pipelines.manifest import Rejected
from pipelines.registry import resolve
from pipelines.storage import join, publish
from pipelines.tracking import JobRun, tracking_uri

METHODS = ",".join([*BASELINES, "cssta"])


def evaluate(cfg: JobConfig, options: Namespace) -> int:
    source = options.model or f"models:/{cfg.registry.name}@{cfg.registry.alias}"
    folder, version = resolve(source, tracking_uri(cfg) if source.startswith("models:/") else None)
    connect()
    with JobRun.start(cfg, job="evaluate") as run, tempfile.TemporaryDirectory() as scratch:
        run.set_tags({"model": source, "model_version": version})
        if options.protocol:
            run.set_tags({"protocol": options.protocol})
            metrics, table, files = by_protocol(cfg, options, folder, Path(scratch))
        else:
            summary = evaluate_model(cfg, folder, on_video=show)
            metrics, table = summary.metrics(), summary.markdown()
            files = summary.write(Path(scratch))
        run.log_metrics(metrics)
        target = join(cfg.cluster.storage, cfg.name, "evaluation")
        for file in files:
            run.log_file(file)
            publish(file, join(target, file.name), cfg.data.s3_endpoint)
    print(f"\nmodel: {describe_model(source, version)}\n\n{table}")
    print("\n".join(f"written: {join(target, file.name)}" for file in files))
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    return 0 if metrics["videos"] else 1


def by_protocol(cfg: JobConfig, options: Namespace, folder: Path, scratch: Path):
    """Metrics, the table and the files of an evaluation by a named protocol."""
    holes = "folder" if options.masks else options.holes
    evaluation, pictures = evaluate_protocol(
        cfg,
        folder,
        options.data or cfg.evaluate.videos or cfg.data.videos,
        protocol(options.protocol, holes, cfg.seed),
        options.methods.split(","),
        pictures=scratch / "pictures",
        longest=options.frames,
        mask_folder=options.masks,
        on_sequence=lambda text, done, total: print(f"[{done}/{total}] {text}", flush=True),
    )
    files = write_evaluation(evaluation, scratch, pictures)
    return flat_metrics(evaluation), evaluation.markdown(), files


def show(result: ClipScore | Rejected, position: int, total: int) -> None:
    if isinstance(result, Rejected):
        text = f"failed ({result.reason}): {result.message}"
    else:
        model, telea = (result.scores[f"{name}_hole_psnr"] for name in ("cssta", "telea"))
        text = f"{result.video}: hole PSNR {model:.2f} dB, Telea {telea:.2f} dB"
    print(f"[{position}/{total}] {text}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = job_parser(__doc__)
    parser.add_argument("--model", help="folder or models:/ URI; default: the registry's alias")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: the configuration's own")
    group = parser.add_argument_group("with --protocol")
    group.add_argument("--data", help="DAVIS, YouTube-VOS or a folder (default: evaluate.videos)")
    group.add_argument("--holes", choices=("freeform", "objects"), help="other than the protocol's")
    group.add_argument("--masks", metavar="FOLDER", help="given holes, by sequence")
    group.add_argument("--methods", default=METHODS, help=f"default: {METHODS}")
    group.add_argument("--frames", type=int, metavar="N", help="only the first N of each sequence")
    return run_job(evaluate, parser, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
