"""What goes wrong with storage, told apart by whether trying again makes sense."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import ArrowException

# What no second attempt will mend. (S3 tells refusals by name only.)
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
LASTING_CODES = (errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.EDQUOT, errno.EXDEV)
LASTING_CODES += (errno.EINVAL, errno.ELOOP, errno.ENOTEMPTY)
REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "INVALID_ACCESS_KEY", "SIGNATURE")
REFUSED = re.compile(r"HTTP status 4(?!08|09|25|29)\d\d")  # but "later" and "too many requests"


class StorageError(ValueError):
    """A location that cannot be read or written; the message names it and the remedy.

    `transient`: it may pass by itself, as a network's errors do, so that trying again makes sense.
    """

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class EmptyBucketError(StorageError):
    """A location without any usable video."""


@contextmanager
def named(uri: str, remedy: str) -> Iterator[None]:
    """Errors of pyarrow, which often do not name the URI, as StorageError."""
    try:
        yield
    except (OSError, ArrowException, UnicodeError) as error:  # (Unicode: names of local files)
        reason = " ".join(str(error).split())
        passing = (
            not isinstance(error, (*LASTING, UnicodeError))
            and getattr(error, "errno", None) not in LASTING_CODES
        )
        passing = passing and not any(name in reason for name in REFUSALS)
        passing = passing and not REFUSED.search(reason)
        raise StorageError(f"{uri}: {reason[:400]}; {remedy}", transient=passing) from error
