"""The benchmark's parts (the whole: `make bench-batch`)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cssta.video import open_source
from pipelines.bench_batch import PeakMemory, bare_loop, box, bucket, cores, sides

CPUS = "import os; print(len(os.sched_getaffinity(0)))"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_what_is_started_within_runs_on_so_many_cores():
    def seen() -> int:
        return int(subprocess.run([sys.executable, "-c", CPUS], capture_output=True).stdout)

    before = seen()
    with cores(1):
        assert seen() == 1
    assert seen() == before
    with pytest.raises(SystemExit, match=r"want \d+ cores; there are"), cores(before + 1):
        pass


def test_the_bare_loop_completes_every_frame(tmp_path: Path, tiny_model: Path):
    bucket(tmp_path / "in", [3, 4], (48, 64))
    assert bare_loop(tmp_path, tiny_model, 1) > 0
    made = [open_source(tmp_path / f"bare-{number}.mp4").info.frames for number in range(2)]
    assert made == [3, 4]


def test_peaks_are_told_by_what_rays_workers_do():
    hold = "import sys; held = b'x' * ({} << 20); print(flush=True); sys.stdin.read()"
    sizes = {
        "ray::MapWorker(Map(Completer)).submit": 64,
        "ray::IDLE": 512,
        "ray::FlatMap(survey_group)": 16,
        "other survey_group": 512,
    }  # fmt: skip (MiB)
    workers = [
        subprocess.Popen([name, "-c", hold.format(size)], executable=sys.executable,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name, size in sizes.items()
    ]  # fmt: skip
    try:
        for worker in workers:
            worker.stdout.readline()
        watch = PeakMemory()
        while len(watch.peaks()) < 2:
            assert workers[0].poll() is None
            time.sleep(0.05)
        found = watch.stop()
        assert found.keys() == {"completer", "survey"}
        assert 64 < found["completer"] < 512 and 16 < found["survey"] < 64
    finally:
        for worker in workers:
            worker.communicate()


def test_the_memorys_hole_is_a_box_of_a_sixteenth():
    assert box(sides("96x128")) == "box:32,24,32,24"
