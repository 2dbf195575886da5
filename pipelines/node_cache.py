"""Copies of remote videos on a node: one for all its processes, bounded, gone at the job's end."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs as pafs

from pipelines.retries import patiently
from pipelines.storage import fetch, filesystem, local_copy
from pipelines.storage_names import own_name
from pipelines.watchdog import Watchdog

PREFIX = "cssta-batch-"
_held: dict[Path, int] = {}


def claim_scratch(folder: Path) -> Path:
    """Make a job's folder on this node, and remove those of jobs that were killed.

    While this process lives it holds a lock there (the kernel lets go of it, however it ends);
    a folder that nobody holds is of no job any more.
    """
    for _ in range(100):
        folder.mkdir(parents=True, exist_ok=True)
        if folder in _held and (folder / ".lock").exists():
            return folder
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == (folder / ".lock").stat().st_ino:
                _held[folder] = handle
                break
        os.close(handle)  # it was removed meanwhile
    for other in folder.parent.glob(f"{PREFIX}*"):
        if other != folder:
            _remove_if_nobodys(other)
    return folder


def _remove_if_nobodys(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


class NodeCache:
    """Remote files and folders as local paths; what is local is used in place.

    Args:
        folder: on this node's disk, the same for all processes of the job.
        most_bytes: copies that nobody uses are removed, oldest first, to stay below this, what is
            on its way here counted as if it were here. (What is in use at once may be more.)
    """

    def __init__(self, folder: Path, most_bytes: float, s3_endpoint: str | None = None) -> None:
        self.folder, self.most_bytes, self.endpoint = folder, most_bytes, s3_endpoint

    @contextmanager
    def open(self, uri: str, stamp: str = "") -> Iterator[Path]:
        """A path to the file or folder while the context lasts.

        `stamp` tells it from what was there before. Raises StorageError.
        """
        system, path = filesystem(uri, self.endpoint)
        if isinstance(system, pafs.LocalFileSystem):
            with local_copy(uri) as local:
                yield local
            return
        copied = own_name(uri, path)
        slot = self.folder / hashlib.sha256(f"{uri}\n{stamp}".encode()).hexdigest()[:20]
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(slot.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
        try:
            copy = slot / copied
            while True:
                with Watchdog.paused():  # while another process copies it
                    fcntl.flock(handle, fcntl.LOCK_SH)  # held by all who use it
                if copy.exists():
                    break
                with Watchdog.paused():
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if not copy.exists():
                    self._fill(uri, slot, _size(system, path))
            os.utime(slot)
            yield copy
        finally:
            os.close(handle)

    def _fill(self, uri: str, slot: Path, size: int) -> None:
        partial = slot.with_suffix(".partial")
        room = slot.with_suffix(".room")  # says, while it is there, how many bytes are on their way
        handle = os.open(self.folder / "room.lock", os.O_RDWR | os.O_CREAT)
        try:
            with Watchdog.paused():
                fcntl.flock(handle, fcntl.LOCK_EX)
            room.unlink(missing_ok=True)  # of a process that was killed
            self._make_room(size)
            room.write_text(str(size))
        finally:
            os.close(handle)

        def copy() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fetch(uri, partial, self.endpoint)

        try:
            patiently(copy)
            partial.rename(slot)
        finally:
            room.unlink(missing_ok=True)
            shutil.rmtree(partial, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        slots = {
            path: _bytes_of(path)
            for path in self.folder.iterdir()
            if path.is_dir() and path.suffix != ".partial"
        }
        used = sum(slots.values()) + sum(map(self._coming, self.folder.glob("*.room")))
        for slot in sorted(slots, key=_modified):
            if used + size <= self.most_bytes:
                return
            with suppress(OSError):
                handle = os.open(slot.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(slot)
                    used -= slots[slot]
                finally:
                    os.close(handle)

    def _coming(self, room: Path) -> int:
        """Bytes of a copy that another process is making; of one that was killed, none."""
        with suppress(OSError, ValueError):
            handle = os.open(room.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                room.unlink(missing_ok=True)  # nobody holds the lock: it is not being made
                shutil.rmtree(room.with_suffix(".partial"), ignore_errors=True)
            except BlockingIOError:
                return int(room.read_text())
            finally:
                os.close(handle)
        return 0


def _size(system: pafs.FileSystem, path: str) -> int:
    """Bytes to make room for; what cannot be told is found out by fetching."""
    try:
        info = system.get_file_info(path)
        if info.type != pafs.FileType.Directory:
            return info.size or 0
        return sum(file.size or 0 for file in system.get_file_info(pafs.FileSelector(path)))
    except OSError:
        return 0


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
