"""The folder beside an output in which its finished segments wait, so that work can go on later."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from cssta.video import VideoError
from cssta.video.folder_source import sequence_files

HEAD = 2**20  # bytes at either end of a file that tell it from another of the same size


class WorkFolder:
    """`.<name>.cssta/` beside the output; removed once the output has its name.

    A segment counts as finished when its mark is there, which is written after its data.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f".{output.name}.cssta")

    def open(self, fingerprint: dict, *, resume: bool) -> None:
        """Start anew, or with `resume` go on with what is there if it is the same work.

        Raises VideoError ("resume") where an input or an option has changed since.
        """
        fingerprint = json.loads(json.dumps(fingerprint))
        if resume and self._job.exists():
            earlier = self._earlier()
            changed = [key for key in fingerprint if earlier.get(key) != fingerprint[key]]
            if changed:
                raise VideoError(
                    self.output,
                    "resume",
                    f"it was begun with another {' and '.join(changed)}",
                    "Give the same again, or leave out --resume to start over",
                )
            return
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.mkdir(parents=True)
            self._job.write_text(json.dumps(fingerprint, indent=1))
        except OSError as error:
            raise VideoError(
                self.output, "unwritable", f"cannot be written ({error})", "Check folder and rights"
            ) from error

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
        self._mark(number).write_text(str(data.stat().st_size) if data.exists() else "")

    def _mark(self, number: int) -> Path:
        return self.path / f"segment-{number:05d}.done"

    def keep_if_useful(self) -> bool:
        """Remove the folder unless it holds a finished segment; whether it stays."""
        if any(self.path.glob("*.done")):
            return True
        self.remove()
        return False

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


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
