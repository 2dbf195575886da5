"""Measure a model: on held-out videos beside OpenCV's Telea, or by a named protocol.

python jobs/evaluate.py --config jobs/configs/demo.yaml --model models:/cssta@champion
python jobs/evaluate.py --config jobs/configs/paper.yaml --table 1 --data s3://bucket/DAVIS

`--protocol` and `--table` score the same as `cssta evaluate`, sequences spread over the cluster.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from command_line import connect, job_parser, run_job

from cssta.evaluation.choice import choose_methods
from cssta.evaluation.methods import PARTS
from cssta.evaluation.protocols import PROTOCOLS
from cssta.evaluation.published import TABLES
from pipelines.batch_record import describe_model
from pipelines.config import JobConfig
from pipelines.evaluate import evaluate_model
from pipelines.evaluate_options import by_protocol, say
from pipelines.registry import resolve
from pipelines.storage import join, publish
from pipelines.tracking import JobRun, tracking_uri


def evaluate(cfg: JobConfig, options: Namespace) -> int:
    named_protocol = options.protocol or (f"table {options.table}" if options.table else None)
    results, model = bool(options.results), bool(options.model)
    methods = (
        choose_methods(options.methods, options.table, results, model) if named_protocol else []
    )
    folder = None
    tags = {}
    if not named_protocol or set(methods) & set(PARTS):
        source = options.model or f"models:/{cfg.registry.name}@{cfg.registry.alias}"
        uri = tracking_uri(cfg) if source.startswith("models:/") else None
        folder, version = resolve(source, uri)
        tags = {"model": source, "model_version": version}
    connect()
    with JobRun.start(cfg, job="evaluate") as run, tempfile.TemporaryDirectory() as scratch:
        run.set_tags(tags)
        if named_protocol:
            run.set_tags({"protocol": named_protocol})
            metrics, table, files = by_protocol(cfg, options, folder, methods, Path(scratch))
        else:
            summary = evaluate_model(cfg, folder, on_video=say)
            metrics, table = summary.metrics(), summary.markdown()
            files = summary.write(Path(scratch))
        run.log_metrics(metrics)
        target = join(cfg.cluster.storage, cfg.name, "evaluation")
        for file in files:
            run.log_file(file)
            publish(file, join(target, file.name), cfg.data.s3_endpoint)
    if tags:
        print(f"\nmodel: {describe_model(tags['model'], tags['model_version'])}")
    print(f"\n{table}")
    print(*(f"written: {join(target, file.name)}" for file in files), sep="\n")
    print(f"MLflow run {run.run_id} at {run.tracking_uri}")
    return 0 if metrics["videos"] else 1


def main(argv: list[str] | None = None) -> int:
    parser = job_parser(__doc__)
    parser.add_argument("--model", help="folder or models:/ URI; default: the registry's alias")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: the configuration's own")
    parser.add_argument("--table", type=int, choices=TABLES, help="of the paper, one model's rows")
    group = parser.add_argument_group("with --protocol or --table; folders local or s3://")
    group.add_argument("--data", help="DAVIS, YouTube-VOS or a folder (default: evaluate.videos)")
    group.add_argument("--holes", choices=("freeform", "objects"), help="other than the protocol's")
    group.add_argument("--masks", metavar="FOLDER", help="given holes, by sequence")
    group.add_argument("--results", action="append", default=[], metavar="[NAME=]FOLDER")
    group.add_argument("--methods", metavar="A,B", help="see `cssta evaluate --help`")
    group.add_argument("--frames", type=int, metavar="N", help="only the first N of each sequence")
    for metric in ("lpips", "vfid"):
        group.add_argument(f"--{metric}", type=Path, metavar="FILE", help="weights, on all nodes")
    return run_job(evaluate, parser, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
