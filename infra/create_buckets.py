"""Create the buckets named on the command line on an S3 server; those that exist are left alone.

The server's address and keys come from the environment: MLFLOW_S3_ENDPOINT_URL (or
AWS_ENDPOINT_URL), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Exit status 1 when the server cannot be
reached or refuses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def create_buckets(names: Sequence[str], endpoint: str | None) -> list[str]:
    """Create the buckets that are missing and return their names."""
    client = boto3.client("s3", endpoint_url=endpoint)
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    missing = [name for name in dict.fromkeys(names) if name not in existing]
    for name in missing:
        client.create_bucket(Bucket=name)
    return missing


def main(names: Sequence[str]) -> int:
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL")
    if not names:
        print("usage: create_buckets.py BUCKET...", file=sys.stderr)
        return 2
    try:
        created = create_buckets(names, endpoint)
    except (BotoCoreError, ClientError) as error:
        print(f"buckets {', '.join(names)} at {endpoint or 'AWS'}: {error}", file=sys.stderr)
        return 1
    for name in names:
        print(f"{name}: {'created' if name in created else 'exists'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
