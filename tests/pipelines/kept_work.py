"""What a batch had finished when it was first killed, watched until it ends."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

from pipelines.storage import sha256


class Kept:
    """What was finished at the first kill, and must not be made again: outputs, staged segments."""

    def __init__(self, output: Path | None = None) -> None:
        self.finals: dict[str, str] = {}
        self.times: dict[Path, int] = {}
        self._output = output
        if output is None:
            return
        for record in output.rglob("*.mkv.json"):  # (nothing has failed yet)
            path = record.with_suffix("")
            name = str(path.relative_to(output))
            self.finals[name] = sha256(str(path))
            self.times[path] = path.stat().st_mtime_ns
        for mark in (output / "_work").rglob("segment-*.json"):
            with suppress(FileNotFoundError):  # (its video is being published)
                self.times[mark] = mark.stat().st_mtime_ns

    def check(self) -> None:
        """Nothing of it has been written again so far; what was staged may be gone."""
        for path, modified in self.times.items():
            with suppress(FileNotFoundError):
                assert path.stat().st_mtime_ns == modified, f"{path} was made again"

    def watch(self, driver: subprocess.Popen, deadline: float) -> int:
        """Check until the driver ends, and then that the outputs are still those; its code."""
        while driver.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(driver.args, deadline)
            self.check()
            time.sleep(0.05)
        self.check()
        for name, digest in self.finals.items():
            assert sha256(str(self._output / name)) == digest, f"{name} is another"
        return driver.returncode
