"""A batch survives the death of whatever it runs on (see `kill_batch`)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.batch_ledger import write_ledger
from pipelines.batch_names import LEDGER
from pipelines.batch_record import VideoOutcome
from tests.pipelines.batch_output import Output, differences
from tests.pipelines.kept_work import Kept


@pytest.mark.parametrize("name", ["a b.mkv", "_work/x/y/segment-00001.json"])
def test_what_is_made_again_is_found_out(tmp_path: Path, name: str):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"made")
    Path(f"{path}.json").write_bytes(b"{}")
    kept = Kept(Output(str(tmp_path)))
    kept.check()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
    with pytest.raises(AssertionError, match="made again"):
        kept.check()


def test_a_ledger_that_differs_in_more_than_its_run_is_found_out(tmp_path: Path):
    def contents(run: str, status: str, frames: int, seconds: float) -> dict:
        output = str(tmp_path / run)
        row = VideoOutcome("a.mp4", "/in/a.mp4", f"{output}/a.mkv", status)
        row = replace(row, frames=frames, seconds=seconds)
        write_ledger([row], tmp_path / run / LEDGER)
        return Output(output).contents()

    peace = contents("peace", "done", 5, 1.0)
    assert differences(contents("resumed", "skipped", 5, 2.0), peace) == ""
    assert LEDGER in differences(contents("other", "done", 6, 1.0), peace)
    assert LEDGER in differences(contents("failed", "failed", 5, 1.0), peace)


@pytest.mark.cluster
def test_what_is_killed_on_the_way_changes_nothing():
    """One batch in which three are killed; `make kill-batch` kills all kinds, 20 times in all."""
    command = [
        sys.executable,
        "-m",
        "tests.pipelines.kill_batch",
        "--rounds",
        "1",
        "--seed",
        "5",
        "--plain",
    ]
    done = subprocess.run(
        [*command, "--kills", os.environ.get("CSSTA_KILLS", "actor,driver,lost-node")],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "the same" in done.stdout
