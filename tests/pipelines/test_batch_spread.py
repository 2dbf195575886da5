"""A batch's work is spread over its processes, and goes on without a free CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray

from cssta.video import write_video
from pipelines import batch
from tests.pipelines.fake_engines import load_together
from tests.pipelines.one_process import config, picture_clip

pytestmark = pytest.mark.cluster
ACTORS = 2


@pytest.fixture
def no_cpu_is_free(ray_cluster) -> Iterator[None]:
    """All but what the batch's actors take are held by others, as after the loss of a node."""

    class Other:
        def ready(self) -> None: ...

    others = ray.cluster_resources()["CPU"] - ACTORS
    other = ray.remote(num_cpus=others)(Other).remote()
    ray.get(other.ready.remote())
    yield
    ray.kill(other)


def test_one_long_video_is_completed_by_all_actors(no_cpu_is_free, tmp_path: Path, monkeypatch):
    write_video(tmp_path / "in/long.mp4", picture_clip(24), 24)
    for folder in ("model", "signed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model/weights.safetensors").write_bytes(b"weights")
    (tmp_path / "model/config.yaml").write_text("format: 1")
    monkeypatch.setattr(batch, "most_units", lambda tasks: ACTORS)  # (the file is small)
    cfg = config(tmp_path, inference={"actors": ACTORS, "segment_frames": 6, "sheets": 0})
    load = partial(load_together, signed=tmp_path / "signed", processes=ACTORS)
    summary = batch.complete_bucket(cfg, tmp_path / "model", load_engine=load)
    assert [(o.status, o.segments) for o in summary.outcomes] == [("done", 4)]
    assert len(list((tmp_path / "signed").iterdir())) == ACTORS
