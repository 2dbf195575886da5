"""Places as URIs name them, and names that files may have; nothing is opened."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.storage_errors import StorageError


def local_path(uri: str) -> str:
    """The absolute path of what is local: a plain path or a `file://` URI."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    return str(Path(uri).expanduser().absolute())


def own_name(uri: str, path: str) -> str:
    """The last part of a path, if a file may have that name. Raises StorageError.

    (Keys of a bucket may end in anything, such as `/..`.)
    """
    last = path.rpartition("/")[2]
    if last in ("", ".", "..") or "\0" in last:
        raise StorageError(f"{uri}: {path!r} cannot be the name of a local file; rename it")
    return last


def location(uri: str) -> str:
    """Equal for all URIs of one place: a path without links and `..`, or `s3://` and the key."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":  # (a key is taken literally)
        return f"{scheme}://{rest.strip('/')}"
    path = local_path(uri)
    try:
        return os.path.realpath(path)
    except ValueError:  # no file system has such a name
        return os.path.normpath(path)


def is_at_or_below(uri: str, folder: str) -> bool:
    """Whether a place is a folder or somewhere in it."""
    inner, outer = location(uri), location(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
