"""Files that outlast a loss of power.

A name may reach the disk before the content does: after a crash of the machine a file of the right
size may hold zeros, and a record, which came later, vouch for it.
"""

from __future__ import annotations

import errno
import os

# Of file systems that know no such request, as of some networks.
UNKNOWN = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def write_out(path: str) -> None:
    """Return when a file's content, or a folder's names, are on the disk.

    Raises OSError where that fails; not where a file system cannot do it.
    """
    if os.path.isdir(path) and os.name == "nt":  # (folders cannot be opened there)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    finally:
        os.close(descriptor)
