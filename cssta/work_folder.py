"""The folder beside an output in which its finished segments wait, so that work can go on later."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from cssta.video import VideoError
from cssta.video.folder_source import sequence_files

HEAD = 2**20  # bytes at either end of a file that tell it from another of the same size


class WorkFolder:
    """`.<name>.cssta/` beside the output; removed once the output has its name.

    A segment counts as finished when its mark is there, which is written after its data has reached
    the disk. One process at a time is at work in it.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f".{output.name}.cssta")
        self._lock: int | None = None

    def open(self, fingerprint: dict, *, resume: bool) -> None:
        """Start anew, or with `resume` go on with what is there if it is the same work.

        Raises VideoError: "resume" where an input or an option has changed since, "exists" where
        another process is at work on the same output, "unwritable".
        """
        fingerprint = json.loads(json.dumps(fingerprint))
        try:
            self._acquire()
            if not (resume and self._job.exists()):
                self._clear()
                _write(self._job, json.dumps(fingerprint, indent=1))
                return
        except OSError as error:
            self.close()
            raise VideoError(
                self.output, "unwritable", f"cannot be written ({error})", "Check folder and rights"
            ) from error
        try:
            earlier = self._earlier()
            changed = [key for key in fingerprint if earlier.get(key) != fingerprint[key]]
            if changed:
                raise VideoError(
                    self.output,
                    "resume",
                    f"it was begun with another {' and '.join(changed)}",
                    "Give the same again, or leave out --resume to start over",
                )
        except VideoError:
            self.close()
            raise

    def _acquire(self) -> None:
        """Make the folder and lock it; the kernel lets go of it when the process ends, however."""
        while self._lock is None:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                folder = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:  # removed by the one who was at work in it
                continue
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(folder)
                raise VideoError(
                    self.output, "exists", "another process is at work on it", "Wait for its end"
                ) from None
            except OSError:  # a file system without locks
                pass
            with suppress(FileNotFoundError):
                if os.fstat(folder).st_ino == self.path.stat().st_ino:
                    self._lock = folder
            if self._lock is None:
                os.close(folder)

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def close(self) -> None:
        """Let go of the folder, which stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _earlier(self) -> dict:
        try:
            return json.loads(self._job.read_text())
        except ValueError as error:  # the machine stopped while it was written
            raise VideoError(
                self.output, "resume", "what is left of it is damaged", "Leave out --resume"
            ) from error

    @property
    def _job(self) -> Path:
        return self.path / "job.json"

    def segment(self, number: int) -> Path:
        """Where the data of a segment of a video belongs."""
        return self.path / f"segment-{number:05d}.mkv"

    def texture(self, number: int) -> Path:
        """What a segment leaves for the texture of the next."""
        return self.path / f"texture-{number:05d}.npz"

    @property
    def frames(self) -> Path:
        """Where the pictures of a frame folder belong."""
        return self.path / "frames"

    def is_done(self, number: int) -> bool:
        """Whether the segment is there as it was when it was marked."""
        mark = self._mark(number)
        if not mark.exists():
            return False
        data = self.segment(number)
        return mark.read_text() == (str(data.stat().st_size) if data.exists() else "")

    def mark_done(self, number: int) -> None:
        data = self.segment(number)
        if data.exists():
            flush(data)
        _write(self._mark(number), str(data.stat().st_size) if data.exists() else "")

    def _mark(self, number: int) -> Path:
        return self.path / f"segment-{number:05d}.done"

    def keep_if_useful(self) -> bool:
        """Remove the folder unless it holds a finished segment; whether it stays."""
        if any(self.path.glob("*.done")):
            self.close()
            return True
        self.remove()
        return False

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()


def flush(*files: Path) -> None:
    """Have the files' content on the disk, so that a mark never outlives what it stands for."""
    for file in files:
        with file.open("rb") as data:
            os.fsync(data.fileno())


def _write(file: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    flush(partial)
    partial.replace(file)


def code_digest() -> str:
    """A digest of the method's code: an older version's segments do not fit a newer one's."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def describe(path: Path) -> str:
    """A digest that changes when a file, or the pictures of a folder, change."""
    digest = hashlib.sha256()
    if (path / "config.yaml").exists():  # a model folder
        files = sorted(file for file in path.iterdir() if file.is_file())
    else:
        files = sequence_files(path) or [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as data:
            digest.update(data.read(HEAD))
            if size > HEAD:
                data.seek(max(HEAD, size - HEAD))
                digest.update(data.read())
    return digest.hexdigest()[:16]
