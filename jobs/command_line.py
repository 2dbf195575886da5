"""What the jobs' command lines share: `--config`, `--set`, one-line errors, the cluster."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# `python jobs/NAME.py` puts jobs/ on the path, not the repository with its packages.
sys.path.insert(0, str(REPOSITORY))

from pipelines.config import JobConfig  # noqa: E402


def job_parser(description: str, needs_config: bool = True) -> argparse.ArgumentParser:
    """Parser with the options that all jobs have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = "the job's configuration" + ("" if needs_config else " (default: what options say)")
    parser.add_argument("--config", required=needs_config, metavar="FILE", help=what)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key, such as --set data.height=128 (repeatable)",
    )
    return parser


def run_job(
    job: Callable[[JobConfig, argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    overrides: Callable[[argparse.Namespace], list[str]] = lambda options: [],
    argv: list[str] | None = None,
) -> int:
    """Load the configuration, run `job(config, options)` and return its exit code (None is 0).

    `overrides`: `key=value` that follow from a job's own options; they win over `--set`.
    What the user can put right (a ConfigError, an empty bucket, an unknown model: all of them
    ValueErrors of our own modules) becomes one line on stderr and exit code 1; anything else is a
    fault of the program and keeps its traceback.
    """
    options = parser.parse_args(argv)
    set_up_logging()
    try:
        config = JobConfig.load(options.config, options.set + overrides(options))
        return job(config, options) or 0
    except ValueError as error:
        if type(error).__module__.split(".")[0] not in ("cssta", "pipelines"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def set_up_logging() -> None:
    """Our own log lines, and others' from warnings on: the jobs print their own progress."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    # MLflow sets its loggers' levels whenever it is first imported, to what this says.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    executor = "ray.data._internal.execution.streaming_executor"
    logging.getLogger(executor).setLevel(logging.WARNING)
    # Ray Data warns that its progress bars are off, which is what `connect` asks for.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), or start a local one."""
    # Without an explicit mode a local start writes an access token into the home folder.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if ray.is_initialized():
        return
    runtime_env = None
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job ships its own code
        search_path = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        runtime_env = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, search_path))}}
    ray.init(
        # (Left out, a cluster that somebody started here, perhaps long gone, would be joined.)
        address=os.environ.get("RAY_ADDRESS") or "local",
        runtime_env=runtime_env,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
