"""A whole batch on the cluster, from and to a bucket behind a bad network: as on a good one.

The server is moto, an imitation of S3; faults are injected before it.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

from cssta.video import write_video
from pipelines import storage
from pipelines.batch_names import LEDGER
from pipelines.batch_record import parse_record
from tests.pipelines.batch_driver import REQUEST_SECONDS
from tests.pipelines.flaky_s3 import FAULTS, FlakyS3, flaky_s3
from tests.pipelines.one_process import complete_all, config, picture_clip
from tests.ray_head import Head

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("a.mkv", "sub/#1 é.mkv")
EVERY = 7  # kinds of request


@pytest.fixture
def network(s3_bucket: str, s3_server: str, tmp_path: Path) -> Iterator[FlakyS3]:
    """Before a bucket with two videos and their masks; the same lies in `tmp_path`."""
    for number, name in enumerate(NAMES):
        clip = picture_clip(5 + 4 * number)
        for folder, frames in (("in", clip), ("masks", clip[..., ::-1])):
            local = tmp_path / folder / name
            write_video(tmp_path / "clip.mp4", frames, 24)
            local.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "clip.mp4").rename(local)
            storage.publish(local, f"{s3_bucket}/{folder}/{name}", s3_server)
    with flaky_s3(s3_server) as server:
        server.slow = REQUEST_SECONDS + 1.5
        yield server


class Fresh:
    """Takes each kind of request once, so that whatever is tried again gets through at last."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str) -> bool:
        kind = method, re.sub(r"[0-9a-f]{8}(?=\.partial)|(?<=uploadId=).*", "", path)
        is_fresh = kind not in self._seen
        self._seen.add(kind)
        return is_fresh


def sections(place: str, **inference) -> dict:
    ends = {"videos": f"{place}/in", "masks": f"{place}/masks", "output": f"{place}/out"}
    options = {"lossless": True}
    return {"inference": {**ends, "options": options, "segment_frames": 6, **inference}}


def contents(output: str, endpoint: str | None = None) -> dict[str, bytes | tuple]:
    """Every file of an output; of records what does not depend on the clock."""
    system, root = storage.filesystem(output, endpoint)
    infos = system.get_file_info(pafs.FileSelector(root, recursive=True))
    files = {i.path[len(root) + 1 :]: i.path for i in infos if i.is_file}
    found: dict[str, bytes | tuple] = {}
    for name, path in files.items():
        found[name] = storage.read_bytes(f"s3://{path}" if endpoint else path, endpoint)
        if name.endswith(".mkv.json"):
            record = parse_record(found[name])
            outcome = record["outcome"]
            found[name] = record["sha256"], outcome.status, outcome.frames, outcome.segments
    return found


@pytest.mark.cluster
def test_a_bad_network_only_takes_longer(
    network: FlakyS3, ray_node: Head, s3_server: str, tmp_path: Path
):
    here = config(tmp_path, **sections(str(tmp_path)))
    assert [o.status for o in complete_all(here).values()] == ["done"] * 2
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.safetensors").write_bytes(b"weights")
    (tmp_path / "model/config.yaml").write_text("format: 1")

    away = config(
        tmp_path,
        data={"videos": "x", "s3_endpoint": network.address},
        **sections("s3://bucket", actors=2, sheets=1),
    )
    faults = itertools.cycle(FAULTS)
    network.follow((next(faults) if n % EVERY == 0 else "" for n in itertools.count(1)), Fresh())
    command = [sys.executable, "-m", "tests.pipelines.batch_driver", "--impatient"]
    command += [ray_node.address, away.model_dump_json(), str(tmp_path / "model")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{network.happened} {done.stdout} {done.stderr[-3000:]}"
    assert "2 videos: 2 done" in done.stdout
    assert all(network.happened[fault] for fault in FAULTS), network.happened

    network.follow([])
    found = contents("s3://bucket/out", s3_server)
    # (Of a cut connection a temporary file may stay where the next batch removes it.)
    left = [name for name in found if name.startswith("_work/")]
    assert all("partial" in name for name in left), left
    videos = {key: content for key, content in found.items() if key.endswith((".mkv", ".mkv.json"))}
    assert videos == contents(str(tmp_path / "out"))
    told = {"batch-ledger.parquet", "batch-report.html", "batch-summary.json"}
    others = {key for key in found if not key.startswith((*NAMES, "_work/"))}
    assert told < others and len(others - told) == 1, "one sheet, nothing in quarantine"
    system, root = storage.filesystem(f"s3://bucket/out/{LEDGER}", s3_server)
    rows = pq.read_table(root, filesystem=system).to_pylist()
    seen = [(row["name"], row["status"], row["frames"]) for row in rows]
    assert seen == [(NAMES[0], "done", 5), (NAMES[1], "done", 9)]
