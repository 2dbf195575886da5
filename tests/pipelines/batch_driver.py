"""The driver of a batch on a cluster, as a process of its own; its engine is a fake one.

    python -m tests.pipelines.batch_driver ADDRESS CONFIGURATION MODEL [ENGINE]

The configuration is JSON. Its S3, if any, is a test's: nobody has patience for that.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

REQUEST_SECONDS = 1


def main(address: str, configuration: str, model: str, engine: str = "load_grey") -> int:
    import ray

    from pipelines.batch import complete_bucket
    from pipelines.config import JobConfig
    from tests.pipelines import fake_engines

    cfg = JobConfig.parse(json.loads(configuration))
    environment = {}
    if cfg.data.s3_endpoint:
        impatient()
        variables = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
        hook = f"{impatient.__module__}.{impatient.__name__}"
        environment = {"env_vars": variables, "worker_process_setup_hook": hook}
    ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    summary = complete_bucket(cfg, Path(model), load_engine=getattr(fake_engines, engine))
    print(summary.text(), flush=True)
    return 1 if summary.failures else 0


def impatient() -> None:
    """A single attempt of the client's for each request, a second at most; ours soon again."""
    from pipelines import retries, storage_systems

    storage_systems._REQUEST_SECONDS, storage_systems._ATTEMPTS = REQUEST_SECONDS, 1
    retries.FIRST_WAIT = 0.01


if __name__ == "__main__":
    # (Not this module, which has no name here, is what workers are told of.)
    from tests.pipelines import batch_driver

    sys.exit(batch_driver.main(*sys.argv[1:]))
