"""What tells a bucket's footage from other footage under the same names, at a glance.

Reading every byte of a bucket for this would take as long as an epoch. A file's size and 64 KiB of
its head and tail change with any re-encoding, cutting or exchange of a video; single bytes altered
in the middle are not noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pyarrow import fs as pafs

from pipelines import storage
from pipelines.retries import with_retries
from pipelines.storage_errors import StorageError, named

GLANCE = 64 * 1024
THREADS = 16


def content_digest(uris: Iterable[str], s3_endpoint: str | None = None) -> str:
    """Sixteen hex digits over videos, each a file or a folder of pictures, whatever their order.

    Raises StorageError where one cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        glances = pool.map(lambda uri: with_retries(lambda: glance(uri, s3_endpoint)), uris)
        whole = "".join(sorted(glances))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def glance(uri: str, s3_endpoint: str | None = None) -> str:
    """A digest of a file's name, size, head and tail; of a folder's, for its pictures.

    In a folder only the first and last file are opened; of the others names and sizes count.
    Raises StorageError.
    """
    system, path = storage.filesystem(uri, s3_endpoint)
    found = hashlib.sha256(storage.name(uri).encode())
    with named(uri, "check the address and the credentials"):
        info = system.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise StorageError(f"{uri}: no such file or folder")
        files = [info]
        if not info.is_file:
            inside = system.get_file_info(pafs.FileSelector(path))
            files = sorted((i for i in inside if i.is_file), key=lambda i: i.base_name)
        for number, file in enumerate(files):
            found.update(f"\n{file.base_name} {file.size}\n".encode())
            if number in (0, len(files) - 1):
                with system.open_input_file(file.path) as stream:
                    found.update(stream.read_at(min(GLANCE, file.size), 0))
                    found.update(stream.read_at(min(GLANCE, file.size), max(0, file.size - GLANCE)))
    return found.hexdigest()
