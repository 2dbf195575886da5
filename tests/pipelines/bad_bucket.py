"""An empty bucket on an imitation of S3, behind a network that fails now and then."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer
from pyarrow import fs

from tests.pipelines.flaky_s3 import flaky_s3, seeded


@contextmanager
def bad_bucket(seed: int) -> Iterator[str]:
    """Endpoint of s3://bucket, behind a network on which one of ten requests fails."""
    os.environ |= {f"AWS_{name}": "testing" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    logging.getLogger("werkzeug").setLevel("ERROR")  # (it would tell of every request)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"{host}:{port}"
    system = fs.S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
    system.create_dir("bucket")
    try:
        with flaky_s3(f"http://{address}") as network:
            network.follow(seeded(seed, 0.1))
            yield network.address
            print(f"of {network.happened.total()} requests went wrong: "
                  f"{ {k: n for k, n in network.happened.items() if k} }")  # fmt: skip
    finally:
        server.stop()
