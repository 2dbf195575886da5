"""A whole batch from and to a bucket behind a bad network: as on a good one, only later.

The server is moto, an imitation of S3; faults are injected before it. Each step is what the cluster
runs, here in one process.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from cssta.video import write_video
from pipelines import storage
from pipelines.batch_lease import Lease
from pipelines.batch_plan import plan_batch
from pipelines.batch_publish import publish_results
from pipelines.batch_quarantine import Quarantine
from pipelines.batch_record import parse_record
from pipelines.config import JobConfig
from tests.pipelines.flaky_s3 import FAULTS, FlakyS3, flaky_s3
from tests.pipelines.one_process import MODEL, complete_one, config, picture_clip, settings_of

EVERY = 11  # requests: more than any call makes, so that its next attempt gets through


@pytest.fixture
def network(s3_bucket: str, s3_server: str, tmp_path: Path, monkeypatch) -> Iterator[FlakyS3]:
    """Before a bucket with two videos and their masks; without the client's own attempts.

    The same lies in `tmp_path`.
    """
    monkeypatch.setattr("pipelines.storage_systems._ATTEMPTS", 1)
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.01)
    for number, name in enumerate(("a.mkv", "sub/#1 é.mkv")):
        clip = picture_clip(5 + 4 * number)
        for folder, frames in (("in", clip), ("masks", clip[..., ::-1])):
            local = tmp_path / folder / name
            write_video(tmp_path / "clip.mp4", frames, 24)
            local.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "clip.mp4").rename(local)
            storage.publish(local, f"{s3_bucket}/{folder}/{name}", s3_server)
    with flaky_s3(s3_server) as server:
        yield server


def run(cfg: JobConfig):
    """The summary of a batch, as `complete_bucket` makes one."""
    output, endpoint = cfg.inference.output, cfg.data.s3_endpoint
    settings, started = settings_of(cfg), time.monotonic()
    with Lease(output, endpoint, beat=2.0):
        plan = plan_batch(cfg, MODEL)
        quarantine, outcomes = Quarantine(output, endpoint), list(plan.settled)
        for task in plan.tasks:
            outcomes.append(complete_one(task, settings))
            quarantine.update(task, outcomes[-1])
        call = lambda function, items: [RuntimeError("no sheets")] * len(items)  # noqa: E731
        return publish_results(cfg, MODEL, plan, outcomes, settings, started, call, False)


def contents(output: str, endpoint: str | None = None) -> dict[str, bytes | tuple]:
    """Every file of an output; of records what does not depend on the clock."""
    system, root = storage.filesystem(output, endpoint)
    infos = system.get_file_info(pafs.FileSelector(root, recursive=True))
    files = {i.path[len(root) + 1 :]: i.path for i in infos if i.is_file}
    found: dict[str, bytes | tuple] = {}
    for name, path in files.items():
        content = storage.read_bytes(f"s3://{path}" if endpoint else path, endpoint)
        if name.endswith(".mkv.json"):
            record = parse_record(content)
            found[name] = record["sha256"], record["outcome"].status
        else:
            found[name] = content if name.endswith(".mkv") else b"told"
    return found


def test_a_bad_network_only_takes_longer(
    network: FlakyS3, s3_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def at(place: str, endpoint: str | None = None) -> JobConfig:
        inference = {key: f"{place}/{key}" for key in ("masks", "output")}
        inference |= {"videos": f"{place}/in", "options": {"lossless": True}, "segment_frames": 6}
        return config(tmp_path, data={"videos": "x", "s3_endpoint": endpoint}, inference=inference)

    assert run(at(str(tmp_path))).count("done") == 2
    assert "attempt" not in caplog.text
    faults = itertools.cycle(FAULTS)
    network.follow(next(faults) if n % EVERY == 0 else "" for n in itertools.count(1))
    summary = run(at("s3://bucket", network.address))
    assert summary.count("done") == 2, summary.text()
    retries = len(re.findall(r"attempt 1 of \d", caplog.text))
    faulty = sum(network.happened[fault] for fault in FAULTS if fault != "slow")
    assert 0 < retries <= faulty, "not every fault may need an attempt, but none is free"
    assert all(network.happened[fault] for fault in FAULTS), network.happened
    assert not re.search(r"attempt [3-9] of", caplog.text)

    network.follow([])
    found = contents("s3://bucket/output", s3_server)
    work = [name for name in found if name.startswith("_work/")]
    # (Of a cut connection a temporary file may stay where the next batch removes it.)
    assert all("partial" in name for name in work)
    assert not [name for name in found if name.startswith("_quarantine/")]
    done = {name: content for name, content in found.items() if name not in work}
    assert done == contents(str(tmp_path / "output"))
