"""What a server or a disk answers, told apart by whether it can pass."""

from __future__ import annotations

import errno

import pytest

from pipelines.storage_errors import StorageError, named

S3 = "When getting information for key 'a' in bucket 'b': AWS Error"


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (OSError(f"{S3} NETWORK_CONNECTION during HeadObject operation: no response"), True),
        (OSError(f"{S3} UNKNOWN (HTTP status 500) during HeadObject operation"), True),
        (OSError(f"{S3} SLOW_DOWN during HeadObject operation: (HTTP status 429)"), True),
        (OSError(f"{S3} UNKNOWN (HTTP status 408) during HeadObject operation"), True),
        (OSError(f"{S3} UNKNOWN (HTTP status 400) during HeadObject operation"), False),
        (OSError(f"{S3} ACCESS_DENIED during HeadObject operation"), False),
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.ENOSPC, "no space left on device"), False),
        (OSError(errno.EXDEV, "invalid cross-device link"), False),
        (PermissionError(errno.EACCES, "permission denied"), False),
        (UnicodeError("surrogates not allowed"), False),
    ],
)
def test_what_no_waiting_mends_is_told_so(error: Exception, transient: bool):
    with (
        pytest.raises(StorageError, match=r"s3://b/a: .*; do this") as caught,
        named("s3://b/a", "do this"),
    ):
        raise error
    assert caught.value.transient == transient
