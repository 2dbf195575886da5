"""Segments: completed frame by frame, staged, marked; not done again, whoever comes next."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cssta.video import open_source, read_frames, write_video
from pipelines.batch_plan import plan_batch
from pipelines.batch_source import opened
from pipelines.batch_units import parts_of
from pipelines.complete_part import complete_part
from pipelines.staging import Staging
from pipelines.watchdog import Watchdog
from tests.pipelines.fake_engines import GREY, GreyEngine
from tests.pipelines.one_process import (
    MODEL,
    complete_all,
    complete_one,
    complete_parts,
    config,
    picture_clip,
    settings_of,
)


@pytest.fixture
def long_video(tmp_path: Path):
    """A task of four segments, and its settings."""
    write_video(tmp_path / "in/a.mp4", picture_clip(40), 24)
    cfg = config(tmp_path, inference={"segment_frames": 12})
    (task,) = plan_batch(cfg, MODEL).tasks
    return task, settings_of(cfg)


def test_staged_segments_are_not_done_again(long_video):
    task, settings = long_video
    assert complete_parts(task, settings) == [0, 1, 2, 3]
    assert complete_parts(task, settings) == []
    staged = Path(task.staging)
    (staged / "segment-00001.mkv").write_bytes(b"cut short")
    (staged / "segment-00002.json").write_text("{")
    (staged / "segment-00003.json").unlink()
    assert complete_parts(task, settings) == [1, 2, 3]
    # As a machine's crash leaves it, or a bad disk: of the same size.
    size = (staged / "segment-00002.mkv").stat().st_size
    (staged / "segment-00002.mkv").write_bytes(bytes(size))
    assert complete_parts(task, settings) == [2]
    assert complete_one(task, settings).segments == 4


def test_segments_of_another_input_or_software_are_not_taken(long_video, tmp_path, monkeypatch):
    task, settings = long_video
    complete_parts(task, settings)
    monkeypatch.setattr("pipelines.batch_record.__version__", "99")
    assert len(complete_parts(task, settings)) == 4
    monkeypatch.undo()
    (tmp_path / "in/a.mp4").touch()
    changed = config(tmp_path, inference={"segment_frames": 12})
    (again,) = plan_batch(changed, MODEL).tasks
    assert again.work == task.work and again.staging != task.staging
    assert complete_one(again, settings).status == "done"
    # The earlier input's are another run's, unless they are older than the lease.
    staged = [path for path in Path(task.staging).iterdir() if path.is_file()]
    last = max(path.stat().st_mtime_ns for path in staged)
    Staging(again, None).remove(last)
    assert all(path.exists() for path in staged)
    Staging(again, None).remove(last + 1)
    assert not Path(task.staging).exists()


def test_a_video_comes_out_the_same_however_it_is_cut(tmp_path: Path):
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 255, (40, 4, 6, 3), dtype=np.uint8)
    write_video(tmp_path / "in/a.mp4", shapes.repeat(8, 1).repeat(8, 2), 24)
    outcomes, frames = [], []
    for length in (240, 12, 7):
        out = str(tmp_path / f"out-{length}")
        options = {"codec": "ffv1", "lossless": True}
        cfg = config(
            tmp_path, inference={"segment_frames": length, "output": out, "options": options}
        )
        write_manifest = tmp_path / "list.csv"
        write_manifest.write_text("video,output\na.mp4,a.mkv\n")
        cfg = cfg.model_copy(
            update={"inference": cfg.inference.model_copy(update={"manifest": str(write_manifest)})}
        )
        (outcome,) = complete_all(cfg).values()
        assert outcome.status == "done", outcome.message
        outcomes.append(outcome)
        frames.append(read_frames(outcome.output))
    whole, *cut = outcomes
    assert [o.segments for o in outcomes] == [1, 4, 6]
    for other, pixels in zip(cut, frames[1:], strict=True):
        assert (pixels == frames[0]).all()
        for key in ("psnr", "ssim", "hole_psnr", "hole_ratio", "hole_frames"):
            assert getattr(other, key) == pytest.approx(getattr(whole, key))


def test_only_the_hole_changes_and_it_becomes_what_the_engine_says(tmp_path: Path):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    (tmp_path / "list.jsonl").write_text(
        json.dumps({"video": "a.mp4", "output": "a.mkv", "boxes": "8,8,16,16", "lossless": True})
    )
    (outcome,) = complete_all(
        config(tmp_path, inference={"manifest": str(tmp_path / "list.jsonl")})
    ).values()
    assert outcome.status == "done", outcome.message
    before, after = (
        [frame.rgb() for frame in open_source(path).frames()]
        for path in (tmp_path / "in/a.mp4", outcome.output)
    )
    for old, new in zip(before, after, strict=True):
        # (Samples are the same outside the hole; RGB is made of halved chroma beside it too.)
        assert (old[:4] == new[:4]).all() and (old[:, 28:] == new[:, 28:]).all()
        assert abs(new[12:20, 12:20].astype(int) - GREY).max() <= 2
    assert outcome.hole_frames == 12
    assert outcome.hole_ratio == pytest.approx(16 * 16 / (32 * 48))


def test_the_self_test_is_made_once_where_the_first_hole_is(long_video, tmp_path):
    cfg = config(tmp_path, inference={"segment_frames": 12, "self_test_frames": 4})
    (task,) = plan_batch(cfg, MODEL).tasks
    settings = settings_of(cfg)
    complete_parts(task, settings)
    staging = Staging(task, None)
    tests = [staging.mark(number)["self_test"] for number in range(4)]
    assert sum(test is not None for test in tests) == 1
    assert complete_one(task, settings).quality["self_test"] == next(t for t in tests if t)


def test_a_self_test_for_which_there_is_no_memory_costs_no_video(tmp_path, caplog):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)

    class Small(GreyEngine):
        def inpaint(self, frames, masks, progress=None):
            if progress:  # (the self-test's, of a clip at once)
                raise MemoryError("12 GiB")
            return super().inpaint(frames, masks)

    (outcome,) = complete_all(config(tmp_path), Small()).values()
    assert (outcome.status, outcome.quality["self_test"]) == ("done", None)
    assert outcome.quality["seam"] is not None
    assert "a.mp4: no self-test: 12 GiB" in caplog.text


def test_every_video_is_tested_by_default(tmp_path: Path):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    (outcome,) = complete_all(config(tmp_path)).values()
    record = json.loads(Path(f"{outcome.output}.json").read_text())
    assert 0 < record["outcome"]["quality"]["self_test"] < 60


def test_progress_is_told_long_before_the_first_frame_and_in_the_self_test(tmp_path):
    """A network that takes minutes for a frame makes progress as well."""
    write_video(tmp_path / "in/a.mp4", picture_clip(20), 24)
    cfg = config(tmp_path, inference={"self_test_frames": 7})
    (task,) = plan_batch(cfg, MODEL).tasks
    settings, told = settings_of(cfg), []

    class Patient(GreyEngine):
        before = 0

        def stream(self, pairs, **options):
            pairs = list(pairs)
            self.before = len(told)
            yield from super().stream(iter(pairs), **options)

        def inpaint(self, frames, masks, progress=None):
            alone = len(told)
            result = super().inpaint(frames, masks, progress)
            if progress:
                self.in_test = len(told) - alone
            return result

    with Watchdog(600) as watchdog, opened(task, settings) as video:
        (part,) = parts_of(task, settings, watchdog)
        engine = Patient()
        complete_part(part, video, engine, settings, lambda: told.append(None))
    assert engine.before == 20 and engine.in_test == 7


def test_segments_without_figures_are_not_taken_where_there_are_to_be_some(long_video, tmp_path):
    """A run with `quality` off was killed and is resumed with it on."""
    off = config(tmp_path, inference={"segment_frames": 12, "quality": False})
    (task,) = plan_batch(off, MODEL).tasks
    complete_parts(task, settings_of(off))
    again, settings = long_video
    assert again.fingerprint == task.fingerprint and again.staging != task.staging
    outcome = complete_one(again, settings)
    assert outcome.status == "done" and outcome.quality["seam"] is not None


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "out-of-memory"), (RuntimeError("no such kernel"), "unexpected")],
)
def test_what_the_engine_raises_is_told_apart(tmp_path: Path, error: Exception, reason: str):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)

    class Broken(GreyEngine):
        def inpaint(self, frames, masks):
            raise error

    (outcome,) = complete_all(config(tmp_path), Broken()).values()
    assert (outcome.status, outcome.reason) == ("failed", reason)
    assert not (tmp_path / "out/a.mp4").exists()
    assert not list((tmp_path / "scratch").rglob("*.mkv"))
