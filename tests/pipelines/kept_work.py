"""What a batch had finished when it was first killed, watched until it ends."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.pipelines.batch_output import RECORD, Output


class Kept:
    """What was finished at the first kill, and must not be made again: outputs, staged segments."""

    def __init__(self, output: Output | None = None) -> None:
        self.finals: dict[str, str] = {}
        self.times: dict[str, int] = {}
        self._output = output
        if output is None:
            return
        times = output.times()
        for name in times:
            final = name.removesuffix(".json")
            if name.endswith(RECORD) and final in times:  # (nothing has failed yet)
                self.finals[final] = output.sha256(final)
                self.times[final] = times[final]
            if name.startswith("_work/") and Path(name).match("segment-*.json"):
                self.times[name] = times[name]

    def check(self) -> None:
        """Nothing of it has been written again so far; what was staged may be gone."""
        if not self.times:
            return
        now = self._output.times()
        for name, modified in self.times.items():
            assert now.get(name, modified) == modified, f"{name} was made again"

    def watch(self, driver: subprocess.Popen, deadline: float) -> int:
        """Check until the driver ends, and then that the outputs are still those; its code."""
        while driver.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(driver.args, deadline)
            self.check()
            time.sleep(0.05)
        self.check()
        for name, digest in self.finals.items():
            assert self._output.sha256(name) == digest, f"{name} is another"
        return driver.returncode
