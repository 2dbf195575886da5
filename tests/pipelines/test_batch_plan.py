"""What a batch will do is settled from listings: names, masks, and which outputs still fit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.batch_plan import BatchError, output_names, plan_batch
from pipelines.batch_record import ModelIdentity, VideoOutcome, parse_record, write_record
from pipelines.config import JobConfig
from pipelines.storage import EmptyBucketError

MODEL = ModelIdentity("folder", "3", "digest-a")


def make_config(tmp_path: Path, **inference) -> JobConfig:
    inference = {"videos": str(tmp_path / "in"), "output": str(tmp_path / "out"), **inference}
    return JobConfig.parse({"data": {"videos": str(tmp_path)}, "inference": inference})


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + path.name.encode())


names = st.text(st.sampled_from("abAB .#%é"), min_size=1, max_size=4).filter(
    lambda part: part.strip(" .")
)
paths = st.builds(
    lambda folder, name, suffix: f"{folder}{name}{suffix}",
    st.sampled_from(["", "x/", "x/y/"]),
    names,
    st.sampled_from([".mp4", ".MP4", ".mov", ".mov.mp4", ".webm"]),
)


@given(st.sets(paths, max_size=12))
def test_output_names_never_collide_and_keep_their_folder(sources: set[str]):
    outputs = output_names(sources)
    assert set(outputs) == sources
    assert len({output.lower() for output in outputs.values()}) == len(sources)
    for source, output in outputs.items():
        assert output.endswith(".mp4")
        assert Path(output).parent == Path(source).parent
        assert Path(output).name.startswith(Path(source).name.removesuffix(".mp4"))
    assert output_names(sorted(sources, reverse=True)) == outputs


def test_names_of_mp4_files_stay(tmp_path: Path):
    assert output_names(["a.mp4", "s/a.mp4", "a.mov"]) == {
        "a.mp4": "a.mp4",
        "s/a.mp4": "s/a.mp4",
        "a.mov": "a.mov.mp4",
    }


def test_masks_are_found_beside_the_names_they_belong_to(tmp_path: Path):
    source, masks = tmp_path / "in", tmp_path / "masks"
    touch(source / "a.mp4", source / "sub/a.mov", source / "b.mp4", source / "c.v2.mp4")
    touch(masks / "a.mp4", masks / "a.png", masks / "sub/a/00.png", masks / "c.v2.png")
    plan = plan_batch(make_config(tmp_path, masks=str(masks)), MODEL)

    assert {task.name: Path(task.mask).relative_to(masks).as_posix() for task in plan.tasks} == {
        "a.mp4": "a.mp4",
        "sub/a.mov": "sub/a",
        "c.v2.mp4": "c.v2.png",
    }
    (missing,) = plan.settled
    assert (missing.name, missing.status, missing.reason) == ("b.mp4", "failed", "mask-missing")
    assert "b.png" in missing.message


def test_one_mask_file_serves_every_video(tmp_path: Path):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/b.mp4", tmp_path / "watermark.png")
    plan = plan_batch(make_config(tmp_path, masks=str(tmp_path / "watermark.png")), MODEL)
    assert {task.mask for task in plan.tasks} == {str(tmp_path / "watermark.png")}


def test_drawn_masks_depend_on_the_video_not_on_its_company(tmp_path: Path):
    touch(tmp_path / "in/b.mp4", tmp_path / "in/c.mp4")
    before = {t.name: t.mask_seed for t in plan_batch(make_config(tmp_path), MODEL).tasks}
    touch(tmp_path / "in/a.mp4")
    after = {t.name: t.mask_seed for t in plan_batch(make_config(tmp_path), MODEL).tasks}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 3


def test_outputs_and_masks_inside_the_bucket_are_no_inputs(tmp_path: Path):
    bucket = tmp_path / "in"
    touch(bucket / "a.mp4", bucket / "done/a.mp4", bucket / "masks/a.mp4")
    cfg = make_config(tmp_path, output=str(bucket / "done"), masks=str(bucket / "masks"))
    assert [task.name for task in plan_batch(cfg, MODEL).tasks] == ["a.mp4"]


@pytest.mark.parametrize("output", ["in", "."])
def test_output_over_the_input_is_refused(tmp_path: Path, output: str):
    touch(tmp_path / "in/a.mp4")
    with pytest.raises(BatchError, match=r"inference\.output"):
        plan_batch(make_config(tmp_path, output=str(tmp_path / output)), MODEL)


def test_missing_locations_name_the_key(tmp_path: Path):
    cfg = JobConfig.parse({"data": {"videos": "x"}})
    with pytest.raises(BatchError, match=r"inference\.videos"):
        plan_batch(cfg, MODEL)
    (tmp_path / "in").mkdir()
    with pytest.raises(EmptyBucketError, match=str(tmp_path / "in")):
        plan_batch(make_config(tmp_path), MODEL)
    touch(tmp_path / "in/a.mp4")
    with pytest.raises(BatchError, match="masks"):
        plan_batch(make_config(tmp_path, masks=str(tmp_path / "nowhere")), MODEL)


def finish(task, status: str = "done") -> None:
    """Publish an output and its record, as a completed video has them."""
    output = Path(task.output)
    touch(output)
    outcome = VideoOutcome(task.name, task.video, task.output, status, frames=5)
    Path(task.record).write_text(write_record(task, MODEL, outcome, output.stat().st_size))


def test_finished_outputs_are_skipped_until_anything_changes(tmp_path: Path):
    touch(tmp_path / "in/a.mp4", tmp_path / "masks/a.png")
    cfg = make_config(tmp_path, masks=str(tmp_path / "masks"))
    (task,) = plan_batch(cfg, MODEL).tasks

    def todo(cfg: JobConfig = cfg, model: ModelIdentity = MODEL) -> int:
        return len(plan_batch(cfg, model).tasks)

    finish(task)
    (settled,) = plan_batch(cfg, MODEL).settled
    assert (settled.status, settled.frames) == ("skipped", 5)
    assert todo(model=replace(MODEL, version="4")) == 0  # the same weights under another number
    assert todo(model=replace(MODEL, digest="digest-b")) == 1
    assert todo(make_config(tmp_path, masks=str(tmp_path / "masks"), crf=30)) == 1
    assert todo(make_config(tmp_path)) == 1  # drawn masks instead

    video, mask = tmp_path / "in/a.mp4", tmp_path / "masks/a.png"
    for changed in (video, mask):
        times = changed.stat()
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
        assert todo() == 1, changed
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert todo() == 0

    Path(task.output).write_bytes(b"cut short")
    assert todo() == 1
    finish(task)
    for damage in ("{", "[]", json.dumps({"fingerprint": task.fingerprint})):
        Path(task.record).write_text(damage)
        assert todo() == 1
    Path(task.record).unlink()
    assert todo() == 1


def test_records_survive_the_way_through_json(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    (task,) = plan_batch(make_config(tmp_path), MODEL).tasks
    outcome = VideoOutcome(task.name, task.video, task.output, "done", psnr=31.5)
    text = write_record(task, MODEL, outcome, 12)
    assert "NaN" not in text
    found = parse_record(text.encode())
    assert found["bytes"] == 12
    assert found["outcome"].psnr == 31.5
    assert found["outcome"].ssim != found["outcome"].ssim  # nan again
    assert known_values(found["outcome"]) == known_values(outcome)


def known_values(outcome: VideoOutcome) -> dict:
    return {key: value for key, value in vars(outcome).items() if value == value}
