"""Places as URIs name them, and names that files may have; nothing is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from pipelines.storage_errors import StorageError


def scheme(uri: str) -> str:
    """What stands before `://`, such as "s3"; "" for a plain path, whatever its names hold."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    return found[1] if found else ""


def local_path(uri: str) -> str:
    """The absolute path of what is local: a plain path or a `file://` URI.

    Only of a URI is `%20` a space. Raises StorageError for a `file://` URI of another machine.
    """
    if scheme(uri) != "file":
        return str(Path(uri).expanduser().absolute())
    host, _, path = uri.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise StorageError(f"{uri}: names the machine {host!r}; write file:///folder, or a path")
    return "/" + unquote(path, errors="surrogateescape")


def unescaped(uri: str) -> str:
    """A plain path for a `file://` URI, to which names can be appended as they are; others stay.

    (A bucket's keys are never escaped.) Raises StorageError as `local_path` does.
    """
    return local_path(uri) if scheme(uri) == "file" else uri


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
    kind = scheme(uri)
    if kind not in ("", "file"):  # (a key is taken literally)
        return f"{kind}://{uri.removeprefix(f'{kind}://').strip('/')}"
    path = local_path(uri)
    try:
        return os.path.realpath(path)
    except ValueError:  # no file system has such a name
        return os.path.normpath(path)


def is_at_or_below(uri: str, folder: str) -> bool:
    """Whether a place is a folder or somewhere in it."""
    inner, outer = location(uri), location(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
