"""Finished parts of unfinished videos, in the output's `_work` folder, so that work can go on.

A segment counts when its mark, which is published after its data, has its size and SHA-256. Only
whole files ever have their names, so that two processes that do the same work by mistake do no
harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from pipelines import storage
from pipelines.batch_masks import Listing
from pipelines.batch_record import VideoTask
from pipelines.retries import patiently
from pipelines.storage import StorageError, join


class UnstagedError(Exception):
    """Segments that were reported as staged are not there as they were; `numbers` names them."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(f"segments {list(numbers)} are missing or damaged; run the batch again")
        self.numbers = tuple(numbers)


class Staging:
    """The staging folder of one task. All methods raise StorageError."""

    def __init__(self, task: VideoTask, s3_endpoint: str | None) -> None:
        self.task, self.endpoint = task, s3_endpoint

    def segment(self, number: int) -> str:
        """URI of a segment's data."""
        return join(self.task.staging, f"segment-{number:05d}.mkv")

    def _mark(self, number: int) -> str:
        return join(self.task.staging, f"segment-{number:05d}.json")

    @property
    def _survey(self) -> str:
        return join(self.task.staging, "survey.json")

    def survey(self) -> dict[str, Any] | None:
        """What an earlier survey found; None if there was none."""
        return self._read(self._survey)

    def put_survey(self, content: dict[str, Any]) -> None:
        self._write(self._survey, content)

    def mark(self, number: int) -> dict[str, Any] | None:
        """The mark of a segment that is there, of its size, else None."""
        mark = self._read(self._mark(number))
        if mark is None or mark.get("bytes") != patiently(lambda: self._size(number)):
            return None
        return mark if mark.get("sha256") else None

    def verified(self, number: int) -> dict[str, Any] | None:
        """The mark of a segment that is there as it was when it was marked, else None; it is read.

        (After a crash of a machine, a file of the right size may hold anything.)
        """
        mark = self.mark(number)
        if mark is None:
            return None
        uri = self.segment(number)
        same = patiently(lambda: storage.sha256(uri, self.endpoint)) == mark["sha256"]
        return mark if same else None

    def _size(self, number: int) -> int | None:
        system, path = storage.filesystem(self.segment(number), self.endpoint)
        with storage.named(self.segment(number), "check the address and the credentials"):
            return system.get_file_info(path).size

    def put_segment(self, number: int, data: Path, mark: dict[str, Any]) -> dict[str, Any]:
        """Stage a segment and mark it done; the mark with the size and SHA-256 of its data."""
        uri = self.segment(number)
        mark = {**mark, "bytes": data.stat().st_size, "sha256": storage.sha256(str(data))}
        patiently(lambda: storage.publish(data, uri, self.endpoint, self.task.staging))
        self._write(self._mark(number), mark)
        return mark

    def local_segment(self, number: int, mark: Mapping[str, Any], folder: Path) -> Path:
        """A segment's data as a local file: in place, or copied to the folder.

        Raises UnstagedError where it is not what was marked.
        """
        system, path = storage.filesystem(self.segment(number), self.endpoint)
        if not isinstance(system, pafs.LocalFileSystem):
            path = patiently(lambda: storage.fetch(self.segment(number), folder, self.endpoint))
        if storage.sha256(str(path)) != mark["sha256"]:
            raise UnstagedError([number])
        return Path(path)

    def remove(self, since: int = 0) -> None:
        """Remove this task's unfinished work, and outdated work on the same output.

        Outdated is what was staged for another input, model or settings and is older than `since`
        (ns, by the storage's clock): younger work is another run's, which may still be at it.
        """
        patiently(lambda: storage.delete(self.task.staging, self.endpoint))
        for folder, modified in patiently(self._folders).items():
            if modified < since:
                patiently(lambda uri=folder: storage.delete(uri, self.endpoint))
        system, path = storage.filesystem(self.task.work, self.endpoint)
        if isinstance(system, pafs.LocalFileSystem):
            with suppress(OSError):  # (there is something in it, or it was never made)
                Path(path).rmdir()

    def _folders(self) -> dict[str, int]:
        """Staging folders on the output, of whatever input, and when last a file came to them."""
        found: dict[str, int] = {}
        for name, stamp in Listing(self.task.work, self.endpoint).files.items():
            uri = join(self.task.work, name.partition("/")[0])
            found[uri] = max(found.get(uri, 0), stamp["modified"])
        return found

    def _read(self, uri: str) -> dict[str, Any] | None:
        def read() -> bytes | None:
            try:
                return storage.read_bytes(uri, self.endpoint)
            except StorageError:
                if storage.exists(uri, self.endpoint):
                    raise
                return None

        content = patiently(read)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def _write(self, uri: str, content: dict[str, Any]) -> None:
        data = json.dumps(content, allow_nan=False).encode()
        patiently(lambda: storage.write_bytes(data, uri, self.endpoint, self.task.staging))
