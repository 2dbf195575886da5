"""The file system that a URI is on: this machine's, or S3.

S3 credentials come from the environment (AWS_ACCESS_KEY_ID and so on), another server's address
from `s3_endpoint` or AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pyarrow import fs as pafs

from pipelines.storage_errors import StorageError, named
from pipelines.storage_names import local_path, scheme

# An address nobody answers at should fail within seconds, not the SDK's minutes.
_CONNECT_SECONDS, _REQUEST_SECONDS, _ATTEMPTS = 5, 60, 3


def filesystem(uri: str, s3_endpoint: str | None = None) -> tuple[pafs.FileSystem, str]:
    """The file system a URI is on and its path there.

    Raises StorageError for a scheme other than a plain path, file:// and s3://.
    """
    kind = scheme(uri)
    if kind in ("", "file"):
        return pafs.LocalFileSystem(), local_path(uri)
    if kind != "s3":
        raise StorageError(f"{uri}: {kind}:// is not supported; use a local folder or s3://")
    path = uri.removeprefix("s3://").strip("/")
    if not path:
        raise StorageError(f"{uri}: names no bucket; write s3://bucket/folder")
    return _s3(uri, path.split("/")[0], s3_endpoint), path


def _s3(uri: str, bucket: str, s3_endpoint: str | None) -> pafs.S3FileSystem:
    options: dict[str, object] = {
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": _REQUEST_SECONDS,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    endpoint = s3_endpoint or endpoint_of_environment()
    if endpoint:
        address = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"scheme": address.scheme, "endpoint_override": address.netloc}
    elif not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        with named(uri, "check the bucket's name, or set AWS_REGION"):
            options["region"] = pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(**options)


def endpoint_of_environment() -> str | None:
    """Of a server other than AWS; pyarrow does not read these two variables itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
