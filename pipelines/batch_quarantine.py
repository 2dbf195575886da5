"""Records of what could not be completed, in the output's `_quarantine` folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pipelines import storage
from pipelines.batch_names import QUARANTINE, WORK
from pipelines.batch_record import VideoOutcome, VideoTask
from pipelines.retries import patiently, with_retries
from pipelines.storage import StorageError, join
from pipelines.storage_listing import path_of


class Quarantine:
    """One JSON record per video whose last run failed; removed when a later run succeeds."""

    def __init__(self, output: str, s3_endpoint: str | None = None) -> None:
        self._output, self._endpoint = output, s3_endpoint
        self._earlier = with_retries(self._present)

    def _present(self) -> set[str]:
        """Places, relative to the output, of videos with a record."""
        uri = join(self._output, QUARANTINE)
        system, root = storage.filesystem(uri, self._endpoint)
        selector = storage.pafs.FileSelector(root, recursive=True, allow_not_found=True)
        with storage.named(uri, "check the address and the credentials"):
            infos = system.get_file_info(selector)
        prefix = root.rstrip("/") + "/"
        paths = (path_of(info).removeprefix(prefix) for info in infos if info.is_file)
        return {path.removesuffix(".json") for path in paths}

    def uri(self, task: VideoTask) -> str:
        """Where a task's record is, if it has one."""
        return join(self._output, QUARANTINE, f"{task.place}.json")

    def update(self, task: VideoTask, outcome: VideoOutcome) -> None:
        """Record a failure, or remove the record of an earlier one. Raises StorageError."""
        if outcome.status == "failed":
            self._record(task, outcome)
        elif task.place in self._earlier:
            patiently(lambda: storage.delete(self.uri(task), self._endpoint))
            self._earlier.discard(task.place)

    def _record(self, task: VideoTask, outcome: VideoOutcome) -> None:
        content = {
            "name": task.name,
            "reason": outcome.reason,
            "message": outcome.message,
            "attempts": self._attempts(task) + 1,
            "task": asdict(task),
        }
        data = json.dumps(content, indent=1, sort_keys=True).encode()
        work = join(self._output, WORK, "quarantine")
        patiently(lambda: storage.write_bytes(data, self.uri(task), self._endpoint, work))
        self._earlier.add(task.place)

    def _attempts(self, task: VideoTask) -> int:
        if task.place not in self._earlier:
            return 0
        try:
            record: Any = json.loads(storage.read_bytes(self.uri(task), self._endpoint))
            return int(record["attempts"])
        except (StorageError, ValueError, KeyError, TypeError):
            return 0
