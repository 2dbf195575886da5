"""The driver of a batch on a cluster, as a process of its own; its engine is a fake one.

    python -m tests.pipelines.batch_driver ADDRESS CONFIGURATION MODEL [--engine LOADER]

The configuration is JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

REQUEST_SECONDS = 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("configuration")
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", default="load_grey", help="of tests.pipelines.fake_engines")
    parser.add_argument("--impatient", action="store_true", help="with S3, on all nodes")
    options = parser.parse_args()
    import ray

    from pipelines.batch import complete_bucket
    from pipelines.config import JobConfig
    from tests.pipelines import fake_engines

    cfg = JobConfig.model_validate_json(options.configuration)
    variables = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    environment: dict[str, object] = {"env_vars": variables} if cfg.data.s3_endpoint else {}
    if options.impatient:
        impatient()
        # (By the name that this module has for workers.)
        environment["worker_process_setup_hook"] = "tests.pipelines.batch_driver.impatient"
    ray.init(
        address=options.address, runtime_env=environment, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    load_engine = getattr(fake_engines, options.engine)
    summary = complete_bucket(cfg, options.model, load_engine=load_engine)
    print(summary.text(), flush=True)
    return 1 if summary.failures else 0


def impatient() -> None:
    """A single attempt of the client's for each request, a second at most; ours soon again."""
    from pipelines import retries, storage_systems

    storage_systems._REQUEST_SECONDS, storage_systems._ATTEMPTS = REQUEST_SECONDS, 1
    retries.FIRST_WAIT = 0.01


if __name__ == "__main__":
    sys.exit(main())
