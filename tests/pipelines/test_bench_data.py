"""Every part of `make bench-data` runs, tiny and on the tests' cluster, and prints its figures."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipelines import bench_data, train_stage
from pipelines.bench_footage import larger_bucket, object_masks, plan_of
from pipelines.clip_loading import clip_masks


@pytest.fixture
def figures(monkeypatch, capsys, video_folder, ray_cluster):
    """`figures(*arguments)`: what the benchmark prints for programs, of a tiny run."""

    @contextmanager
    def cluster(cores: int, store: int = 0):
        yield

    class Threads(ThreadPoolExecutor):  # (processes take seconds to start)
        def __init__(self, workers: int, mp_context=None) -> None:
            super().__init__(workers)

    monkeypatch.setattr(bench_data, "cluster", cluster)
    monkeypatch.setattr(bench_data, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(bench_data, "WARM_UP", 1)

    def run(*arguments: str) -> dict:
        sizes = {"clips": 8, "rounds": 1, "cores": 1, "size": 32, "store": 0, "long": 20}
        tiny = [f"--{name}={size}" for name, size in (sizes | {"steps": 4}).items()]
        assert bench_data.main([f"--videos={video_folder}", *tiny, *arguments]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.cluster
def test_the_stream_against_a_bare_loop_with_every_kind_of_masks(figures):
    found = figures("--only", "rate", "--only", "masks")
    for name in ("bare", "streamed", "from_prepared"):
        assert len(found[name]) == 1 and found[name][0] > 0
    for name in ("", "_objects", "_mixed"):
        assert found[f"streamed_over_bare{name}"] > 0
    assert found["from_prepared_over_streamed"] > 0


@pytest.mark.cluster
def test_opens_and_memory(figures):
    found = figures("--only", "opens", "--only", "memory")
    assert found["one_open_speedup"] > 0 and found["late_over_early"] > 0
    assert found["streamed_bytes"] == 8 * 7 * 32 * 32 * 4
    assert found["bucket_bytes"] > 0 and found["spilled_bytes"] >= 0


@pytest.mark.cluster
@pytest.mark.parametrize("stage", ["im2im", "inpainter"])
def test_waiting_is_read_from_a_stages_reports(figures, monkeypatch, stage):
    asked = []

    def train(cfg, name, model, weights, videos, run, say):
        asked.append((name, getattr(cfg.stages, name).steps))
        for share in (0.5, 0.02, 0.04):
            say(f"{name} step 1 loss 0.1 data_wait_share {share}")

    monkeypatch.setattr(train_stage, "train_stage", train)
    found = figures("--only", "waiting", "--stage", stage)
    assert asked == [(stage, 4)]
    assert found["wait_share"] == pytest.approx(0.03) and found["wait_share_at_first"] == 0.5


def test_a_bucket_is_made_larger_than_a_store(video_folder: Path, tmp_path: Path):
    size = sum(path.stat().st_size for path in video_folder.iterdir())
    large = larger_bucket(video_folder, tmp_path / "large", 3 * size)
    files = list(large.iterdir())
    assert 3 * size < sum(path.stat().st_size for path in files) < 4 * size
    assert len(files) in (15, 16) and len(plan_of(large, 32, 8).manifest.videos) == len(files)


def test_object_masks_are_drawn_from(video_folder: Path, tmp_path: Path):
    masks = object_masks(tmp_path / "masks", sequences=2, frames=8)
    plan = plan_of(video_folder, 64, 8, "objects", masks)
    row = plan.rows(0, 1)[0]
    assert row.objects in {str(path) for path in masks.iterdir()}
    holes = clip_masks(row, plan.cfg)
    assert 0.01 < holes.mean() < 0.7 and not np.array_equal(holes[0], holes[-1])
