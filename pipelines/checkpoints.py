"""Checkpoints of a training run, in a local folder or a bucket: kept whole or not at all.

    <run>/step-00000015/...         the stage's files
    <run>/step-00000015/kept.json   their sizes, digests and the metrics; written last
    <run>/step-00000015/damaged.json   that record, once the files were found not to be its own

Ray Train would keep checkpoints too, but its list of them is not replaced atomically, is refused
by the next version of Ray, and a storage error while it is written ends the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyarrow import fs as pafs

from pipelines import storage
from pipelines.retries import with_retries
from pipelines.storage import StorageError
from pipelines.storage_errors import named

logger = logging.getLogger(__name__)

RECORD = "kept.json"
SET_ASIDE = "damaged.json"
Read = TypeVar("Read")
READS = 2  # of a checkpoint before it is believed to be damaged


class DamagedError(StorageError):
    """A checkpoint whose files are not those that were kept."""


@dataclass(frozen=True)
class Kept:
    """A checkpoint that is whole: the step that it was taken after, and that step's metrics."""

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Checkpoints:
    """The newest `keep` checkpoints at `uri`; a description only, to be handed to any process.

    What may pass by itself (a network that is away) is tried again before anything is raised.
    """

    uri: str
    s3_endpoint: str | None = None
    keep: int = 2

    def folder(self, step: int) -> str:
        """URI of a step's checkpoint."""
        return storage.join(self.uri, f"step-{step:08d}")

    def save(self, local: Path, step: int, metrics: dict[str, float]) -> None:
        """Keep the files of a local folder as those of `step`, and remove the oldest.

        Raises StorageError; then what was kept before is still there, and this step is not seen.
        """
        files = sorted(local.iterdir())
        for file in files:
            self._publish(file, step)
        contents = {file.name: {"bytes": file.stat().st_size, **_digest(file)} for file in files}
        record = json.dumps({"step": step, "files": contents, "metrics": metrics}, indent=1)
        uri = storage.join(self.folder(step), RECORD)
        with_retries(lambda: storage.write_bytes(record.encode(), uri, self.s3_endpoint))
        self._remove_old()

    def restore(self, local: Path) -> Kept | None:
        """Copy the newest whole checkpoint's files into a local folder; None if none was kept.

        One whose files are missing or altered, on a second look too, gives way to the one before,
        with a warning; nothing is removed. Raises StorageError if storage cannot be read, if the
        copy cannot be written, and if checkpoints were kept but none is whole any more: training
        anew is not what anybody expects then.
        """
        found = self._found()
        for step in _with(RECORD, found):
            kept = self._fetch_or_set_aside(step, local)
            if kept is not None:
                return kept
        once = {*_with(RECORD, found), *_with(SET_ASIDE, found)}
        if once:
            raise StorageError(
                f"{self.uri}: none of its {len(once)} checkpoints is whole; restore the files, "
                f"with {SET_ASIDE} renamed to {RECORD}, or remove the folder to train the stage "
                "anew"
            )
        if found:
            logger.warning("%s: no checkpoint was ever finished; starting anew", self.uri)
        return None

    def last_step(self) -> int:
        """The step of the newest checkpoint; 0 if none was kept. Raises StorageError."""
        return max(_with(RECORD, self._found()), default=0)

    def _publish(self, file: Path, step: int) -> None:
        uri = storage.join(self.folder(step), file.name)
        with_retries(lambda: storage.publish(file, uri, self.s3_endpoint))

    def _fetch_or_set_aside(self, step: int, local: Path) -> Kept | None:
        for attempt in range(1, READS + 1):
            try:
                return self._fetch(step, local)
            except DamagedError as error:
                logger.warning("look %d of %d, checkpoint left out: %s", attempt, READS, error)
        # All who ask from now on must agree on the step to go on from.
        self._set_aside(step)
        return None

    def _fetch(self, step: int, local: Path) -> Kept:
        """Raises DamagedError for a proven fault of what is kept, StorageError for all others."""
        uri = storage.join(self.folder(step), RECORD)
        content = self._read(storage.read_bytes, uri)
        try:
            record = json.loads(content)
            kept = Kept(int(record["step"]), dict(record["metrics"]))
            digests = {name: file["sha256"] for name, file in record["files"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DamagedError(f"{uri}: is no record of a checkpoint ({error!r})") from error
        for name, expected in digests.items():
            part = storage.join(self.folder(step), name)
            copy = self._read(storage.fetch, part, local)
            if _digest(copy) != {"sha256": expected}:
                raise DamagedError(f"{part}: is not the file that was kept")
        return kept

    def _read(self, call: Callable[..., Read], uri: str, *args: Path) -> Read:
        try:
            return with_retries(lambda: call(uri, *args, self.s3_endpoint))
        except StorageError as error:
            if error.transient or with_retries(lambda: storage.exists(uri, self.s3_endpoint)):
                raise
            raise DamagedError(f"{uri}: is gone") from error

    def _set_aside(self, step: int) -> None:
        record, aside = (storage.join(self.folder(step), name) for name in (RECORD, SET_ASIDE))
        try:
            with_retries(lambda: storage.copy(record, aside, self.s3_endpoint))
        except StorageError:
            if with_retries(lambda: storage.exists(record, self.s3_endpoint)):
                raise
            return  # (another worker has)
        with_retries(lambda: storage.delete(record, self.s3_endpoint))

    def _found(self) -> dict[int, set[str]]:
        """Names of the files in every step's folder, whole or not; the newest step first."""

        def paths() -> list[str]:
            system, path = storage.filesystem(self.uri, self.s3_endpoint)
            selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
            with named(self.uri, "check the address and the credentials"):
                return [info.path for info in system.get_file_info(selector)]

        found: dict[int, set[str]] = {}
        for path in with_retries(paths):
            if step := re.search(r"/step-(\d{8,})(?:/([^/]+))?/?$", path):
                found.setdefault(int(step[1]), set()).update(filter(None, [step[2]]))
        return dict(sorted(found.items(), reverse=True))

    def _remove_old(self) -> None:
        """All but the newest `keep`, and what was left unfinished before the newest."""
        try:
            found = self._found()
            kept = _with(RECORD, found)
            for step in found:
                if step < max(kept, default=0) and step not in kept[: self.keep]:
                    # The record first: what is half removed must not be taken for whole.
                    for uri in (storage.join(self.folder(step), RECORD), self.folder(step)):
                        with_retries(lambda uri=uri: storage.delete(uri, self.s3_endpoint))
        except StorageError as error:  # the next save tries again
            logger.warning("an old checkpoint could not be removed: %s", error)


def _with(name: str, found: dict[int, set[str]]) -> list[int]:
    """The steps whose folders hold that file."""
    return [step for step, names in found.items() if name in names]


def _digest(path: Path) -> dict[str, str]:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return {"sha256": whole.hexdigest()}
