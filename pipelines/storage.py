"""Files in a folder or a bucket: copied to where a decoder can open them, published.

Local paths, `file://` and `s3://` alike (see `pipelines.storage_systems`). What lists them, in
`pipelines.storage_listing`, is to be had here too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pyarrow import ArrowException
from pyarrow import fs as pafs

from pipelines.storage_errors import EmptyBucketError as EmptyBucketError
from pipelines.storage_errors import StorageError, named
from pipelines.storage_listing import PICTURE_SUFFIXES as PICTURE_SUFFIXES
from pipelines.storage_listing import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from pipelines.storage_listing import VideoFile as VideoFile
from pipelines.storage_listing import list_picture_folders as list_picture_folders
from pipelines.storage_listing import list_pictures as list_pictures
from pipelines.storage_listing import list_videos as list_videos
from pipelines.storage_names import own_name, unescaped
from pipelines.storage_sync import write_out
from pipelines.storage_systems import filesystem

_COPIES = 8  # files of a folder at the same time
MOST_MOVED = 5 * 10**9  # bytes: S3 copies no more than 5 GB at once, and moving is copying there


@contextmanager
def local_copy(
    uri: str, cache: str | Path | None = None, s3_endpoint: str | None = None
) -> Iterator[Path]:
    """A path at which a decoder can open the file or frame folder, while the context lasts.

    What is local is used in place. Anything else is copied under `cache` (default: the system's
    temporary folder) and removed afterwards, so that no more is on disk than is being read.
    Raises StorageError if it does not exist or cannot be copied whole.
    """
    system, path = filesystem(uri, s3_endpoint)
    if isinstance(system, pafs.LocalFileSystem):
        if not os.path.exists(path):
            raise StorageError(f"{uri}: no such file or folder")
        yield Path(path)
        return
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cssta-", dir=cache) as folder:
        yield fetch(uri, Path(folder), s3_endpoint)


def fetch(uri: str, folder: Path, s3_endpoint: str | None = None) -> Path:
    """Copy a file, or the files directly in a folder, into a local folder, under its own name.

    Raises StorageError if it does not exist or cannot be copied whole.
    """
    system, path = filesystem(uri, s3_endpoint)
    copy = Path(folder) / own_name(uri, path)
    with named(uri, "check the address, the credentials and the free disk space"):
        info = system.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise StorageError(f"{uri}: no such file or folder")
        if info.is_file:
            _copy_file(system, info, copy)
            return copy
        copy.mkdir(exist_ok=True)
        inside = [info for info in system.get_file_info(pafs.FileSelector(path)) if info.is_file]
        copies = [copy / own_name(uri, info.path) for info in inside]
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(_copy_file, [system] * len(inside), inside, copies))
    return copy


def _copy_file(system: pafs.FileSystem, info: pafs.FileInfo, copy: Path) -> None:
    pafs.copy_files(info.path, str(copy), source_filesystem=system)
    size = copy.stat().st_size
    if size != info.size:
        raise StorageError(f"{info.path}: arrived with {size} of {info.size} bytes", transient=True)


def publish(
    local: str | Path,
    uri: str,
    s3_endpoint: str | None = None,
    temporary: str | None = None,
    digest: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Put a local file at a URI so that it is seen there whole or not at all.

    It is written under a temporary name, its size compared, and moved. (What is too large for S3
    to move goes to its name at once, in parts: S3 shows nothing before the last is there.) An
    existing file is replaced; the local one stays. On a disk it outlasts a loss of power, too.

    Args:
        temporary: folder, in the same bucket or file system, for the temporary name, where what a
            killed process leaves can be found and removed; None: a hidden name beside the target.
        digest: SHA-256 of the local file. What arrived is read again and held against it before it
            gets its name. (What is too large to move has its name by then, and loses it.)
        check: called just before it gets its name; what it raises leaves all as it was.

    Raises StorageError.
    """
    local = Path(local)
    system, path = filesystem(uri, s3_endpoint)
    target = PurePosixPath(path)
    mark = uuid.uuid4().hex[:8]
    partial = target.with_name(f".{target.name}.{mark}.partial")
    if temporary is not None:
        partial = PurePosixPath(filesystem(temporary, s3_endpoint)[1]) / f"{mark}.partial"
    with named(uri, "check that the folder or bucket exists and may be written to"):
        size = local.stat().st_size
        if isinstance(system, pafs.LocalFileSystem):
            system.create_dir(str(target.parent), recursive=True)
            system.create_dir(str(partial.parent), recursive=True)
        elif size > MOST_MOVED:
            partial = target
        partial = str(partial)
        before = _look(system, path) if partial == path else None
        is_damaged = False
        try:
            if partial == path:
                check()
            pafs.copy_files(str(local), partial, destination_filesystem=system)
            if isinstance(system, pafs.LocalFileSystem):
                write_out(partial)
            written = system.get_file_info(partial).size
            if written != size:
                raise StorageError(f"{uri}: {written} of {size} bytes written", transient=True)
            is_damaged = digest is not None and _sha256(system, partial) != digest
            if is_damaged:
                raise StorageError(f"{uri}: was damaged on its way", transient=True)
            if partial != path:
                check()
                system.move(partial, path)
            if isinstance(system, pafs.LocalFileSystem):
                write_out(str(target.parent))
        except BaseException:
            with suppress(OSError, ArrowException):
                there = _look(system, partial) if partial == path else None
                is_half = there is not None and there != before and there[0] != size
                if there is None or is_half or is_damaged:
                    system.delete_file(partial)
            raise


def _look(system: pafs.FileSystem, path: str) -> tuple[int | None, int | None]:
    info = system.get_file_info(path)
    return info.size, info.mtime_ns


def copy(uri: str, to: str, s3_endpoint: str | None = None, temporary: str | None = None) -> None:
    """Copy a file within one file system or bucket, whole or not at all; replaces what is there.

    `temporary` as for `publish`. Raises StorageError.
    """
    system, path = filesystem(uri, s3_endpoint)
    if isinstance(system, pafs.LocalFileSystem):
        return publish(path, to, s3_endpoint, temporary)
    with named(uri, "check the address and the credentials"):
        size = system.get_file_info(path).size
        if (size or 0) <= MOST_MOVED:
            return system.copy_file(path, filesystem(to, s3_endpoint)[1])
    with local_copy(uri, None, s3_endpoint) as local:
        publish(local, to, s3_endpoint, temporary)


def delete(uri: str, s3_endpoint: str | None = None) -> None:
    """Remove a file, or a folder with all it holds, if it is there. Raises StorageError."""
    system, path = filesystem(uri, s3_endpoint)
    with named(uri, "check the address and the credentials"), suppress(FileNotFoundError):
        kind = system.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            system.delete_dir(path)
        elif kind == pafs.FileType.File:
            system.delete_file(path)


def read_bytes(uri: str, s3_endpoint: str | None = None) -> bytes:
    """A small file's content. Raises StorageError."""
    system, path = filesystem(uri, s3_endpoint)
    with (
        named(uri, "check the address and the credentials"),
        system.open_input_file(path) as stream,
    ):
        return stream.read()


def sha256(uri: str, s3_endpoint: str | None = None) -> str:
    """Of a file's content, which is read for it. Raises StorageError."""
    system, path = filesystem(uri, s3_endpoint)
    with named(uri, "check the address and the credentials"):
        return _sha256(system, path)


def _sha256(system: pafs.FileSystem, path: str) -> str:
    whole = hashlib.sha256()
    with system.open_input_stream(path) as stream:
        while chunk := stream.read(2**22):
            whole.update(chunk)
    return whole.hexdigest()


def write_bytes(
    content: bytes, uri: str, s3_endpoint: str | None = None, temporary: str | None = None
) -> None:
    """Publish a small file's content; `temporary` as for `publish`. Raises StorageError."""
    with tempfile.TemporaryDirectory(prefix="cssta-") as folder:
        local = Path(folder) / "content"
        local.write_bytes(content)
        publish(local, uri, s3_endpoint, temporary)


def exists(uri: str, s3_endpoint: str | None = None) -> bool:
    """Whether there is a file or folder at a URI."""
    system, path = filesystem(uri, s3_endpoint)
    with named(uri, "check the address and the credentials"):
        return system.get_file_info(path).type != pafs.FileType.NotFound


def join(uri: str, *names: str) -> str:
    """A URI with further path parts, which are names as they are: nothing in them is escaped."""
    return "/".join([unescaped(uri).rstrip("/"), *names])


def name(uri: str) -> str:
    """The last part of a URI."""
    return PurePosixPath(uri.rstrip("/")).name


def stem(uri: str) -> str:
    """The last part of a URI without its suffix: what outputs and masks of a video are named by."""
    return PurePosixPath(uri.rstrip("/")).stem
