"""A stage ends with the same bytes whatever is killed on the way (see `kill_train`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def test_worker_node_and_driver_killed_end_with_the_bytes_of_a_loop_in_peace():
    """One stage in which each is killed once; `make kill-train` kills at 20 random steps."""
    command = [sys.executable, "-m", "tests.pipelines.kill_train", "--rounds", "1", "--seed", "5"]
    done = subprocess.run(
        [*command, "--kills", os.environ.get("CSSTA_KILLS", "worker,node,driver")],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "the same" in done.stdout
