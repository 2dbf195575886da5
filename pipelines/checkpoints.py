"""Checkpoints of a training run, in a local folder or a bucket: kept whole or not at all.

    <run>/step-00000015/...         the stage's files
    <run>/step-00000015/kept.json   their sizes, digests and the metrics; written last

Ray Train would keep checkpoints too, but its list of them is not replaced atomically, is refused
by the next version of Ray, and a storage error while it is written ends the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs as pafs

from pipelines import storage
from pipelines.retries import with_retries
from pipelines.storage import StorageError
from pipelines.storage_errors import named

logger = logging.getLogger(__name__)

RECORD = "kept.json"


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

        One whose files are not what was kept is dropped, with a warning, for the one before.
        Raises StorageError if storage cannot be read, or if checkpoints were kept but none is whole
        any more: training anew is not what anybody expects then.
        """
        steps = self._steps()
        for step in steps:
            try:
                return self._fetch(step, local)
            except StorageError as error:
                if error.transient:
                    raise
                logger.warning("checkpoint left out: %s", error)
                self._forget(step)
        if steps:
            raise StorageError(
                f"{self.uri}: none of its {len(steps)} checkpoints is whole; restore the files, or "
                "remove the folder to train the stage anew"
            )
        return None

    def last_step(self) -> int:
        """The step of the newest checkpoint; 0 if none was kept. Raises StorageError."""
        return max(self._steps(), default=0)

    def _publish(self, file: Path, step: int) -> None:
        uri = storage.join(self.folder(step), file.name)
        with_retries(lambda: storage.publish(file, uri, self.s3_endpoint))

    def _fetch(self, step: int, local: Path) -> Kept:
        uri = storage.join(self.folder(step), RECORD)
        content = with_retries(lambda: storage.read_bytes(uri, self.s3_endpoint))
        try:
            record = json.loads(content)
            kept = Kept(int(record["step"]), dict(record["metrics"]))
            files = dict(record["files"])
        except (ValueError, LookupError, TypeError) as error:
            raise StorageError(f"{uri}: is no record of a checkpoint ({error!r})") from error
        for name, expected in files.items():
            part = storage.join(self.folder(step), name)
            copy = with_retries(lambda part=part: storage.fetch(part, local, self.s3_endpoint))
            if _digest(copy) != {"sha256": expected["sha256"]}:
                raise StorageError(f"{part}: is not the file that was kept")
        return kept

    def _steps(self) -> list[int]:
        """Steps of all checkpoints with a record, the newest first."""

        def names() -> list[str]:
            system, path = storage.filesystem(self.uri, self.s3_endpoint)
            selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
            with named(self.uri, "check the address and the credentials"):
                return [info.path for info in system.get_file_info(selector) if info.is_file]

        records = (re.search(rf"/step-(\d+)/{RECORD}$", name) for name in with_retries(names))
        return sorted((int(found[1]) for found in records if found), reverse=True)

    def _forget(self, step: int) -> None:
        """Only the record goes: whoever reads the warning may still want to see the files."""
        uri = storage.join(self.folder(step), RECORD)
        with_retries(lambda: storage.delete(uri, self.s3_endpoint))

    def _remove_old(self) -> None:
        try:
            for step in self._steps()[self.keep :]:
                self._forget(step)
                storage.delete(self.folder(step), self.s3_endpoint)
        except StorageError as error:  # the next save tries again
            logger.warning("an old checkpoint could not be removed: %s", error)


def _digest(path: Path) -> dict[str, str]:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return {"sha256": whole.hexdigest()}
