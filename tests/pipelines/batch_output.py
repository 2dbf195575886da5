"""The output of a batch, local or on S3: looked at while it works, compared when it has ended."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq

from cssta.video import open_source
from pipelines import storage
from pipelines.batch_masks import Listing
from pipelines.batch_names import LEDGER, REPORT, SUMMARY
from pipelines.retries import with_retries
from pipelines.storage import StorageError, join

RECORD = ".mkv.json"


class Output:
    """Files below a URI."""

    def __init__(self, uri: str, endpoint: str | None = None) -> None:
        self.uri, self._endpoint = uri, endpoint

    def times(self) -> dict[str, int]:
        """When each was last changed, in ns, by name."""
        for _ in range(5):
            try:
                files = with_retries(lambda: Listing(self.uri, self._endpoint)).files
                return {name: stamp["modified"] for name, stamp in files.items()}
            except StorageError:  # (a folder went in between)
                continue
        raise AssertionError(f"{self.uri} cannot be listed")

    def read(self, name: str) -> bytes:
        return with_retries(lambda: storage.read_bytes(join(self.uri, name), self._endpoint))

    def sha256(self, name: str) -> str:
        return with_retries(lambda: storage.sha256(join(self.uri, name), self._endpoint))

    def frames(self, name: str) -> int:
        """Of a video, all decoded."""

        def count() -> int:
            with storage.local_copy(join(self.uri, name), None, self._endpoint) as path:
                return sum(1 for _ in open_source(path).frames())

        return with_retries(count)

    def progress(self, segments: dict[str, int]) -> int:
        """Segments that are staged, or part of what is published; `segments`: of each video."""
        names = set(self.times())
        finished = [name for name in segments if f"{name}{RECORD}" in names]
        marks = [n for n in names if n.startswith("_work/") and Path(n).match("segment-*.json")]
        return len(marks) + sum(segments[name] for name in finished)

    def check_finals(self, frames: dict[str, int]) -> set[str]:
        """Whatever has its final name is whole; names of those. `frames`: of each video."""
        finals = {f"{name}.mkv": count for name, count in frames.items()}
        for name in finals.keys() & self.times().keys():
            assert self.frames(name) == finals[name], f"{name} is half-written"
        return finals.keys() & self.times().keys()

    def contents(self) -> dict[str, object]:
        """Every file; records and the ledger without times; of the report that there is one.

        (What one run calls done is skipped for another. Of a cut connection a temporary file may
        stay in a bucket's `_work`, where the next batch removes it.)
        """
        found: dict[str, object] = {}
        for name in sorted(self.times()):
            if self._endpoint and name.startswith("_work/") and name.endswith(".partial"):
                continue
            found[name] = "there" if name in (REPORT, SUMMARY) else self.read(name)
            if name.endswith(RECORD):
                record = json.loads(found[name])
                del record["outcome"]["seconds"], record["modified"]
                self._take_place(record["outcome"])
                found[name] = json.dumps(record, sort_keys=True)
            if name == LEDGER:
                found[name] = pq.read_table(io.BytesIO(found[name])).to_pylist()
                for row in found[name]:
                    del row["seconds"]
                    row["status"] = row["status"].replace("skipped", "done")
                    self._take_place(row)
        return found

    def _take_place(self, outcome: dict) -> None:
        for key in ("output", "sheet"):
            outcome[key] = outcome[key].removeprefix(self.uri)


def differences(found: dict, peace: dict) -> str:
    parts = {"missing": peace.keys() - found.keys(), "more": found.keys() - peace.keys()}
    parts["changed"] = {key for key in peace.keys() & found.keys() if peace[key] != found[key]}
    return "; ".join(f"{word}: {sorted(names)}" for word, names in parts.items() if names)
