"""What a batch will do is settled from listings: names, masks, and which outputs still fit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.batch_masks import BatchError
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import (
    ModelIdentity,
    Published,
    VideoOutcome,
    parse_record,
    record_of,
    write_record,
)
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


def test_folders_of_frames_beside_videos_are_videos_too(tmp_path: Path):
    source = tmp_path / "in"
    touch(source / "a.mp4", source / "walk/0001.png", source / "walk/0002.png", source / "e.png")
    touch(source / "films/b.mp4", source / "films/poster.jpg", source / ".old/0001.png")
    touch(source / "m/one.png", source / "done/contact-sheets/a.mp4.png")
    ends = {"output": str(source / "done"), "masks": str(source / "m/one.png")}
    tasks = plan_batch(make_config(tmp_path, **ends), MODEL).tasks
    assert [task.name for task in tasks] == ["a.mp4", "films/b.mp4", "walk"]
    assert tasks[2].video == str(source / "walk")
    assert tasks[2].identity["input"]["pictures"] == 2


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


def finish(task, uri: str | None = None) -> None:
    """Publish an output and its record, as a completed video has them."""
    output = Path(uri or task.output)
    touch(output)
    figures = {"seam": 1.0, "warping": 1.0}
    status = "review" if uri == task.review else "done"
    outcome = VideoOutcome(task.name, task.video, str(output), status, frames=5, quality=figures)
    Path(record_of(str(output))).write_text(write_record(task, MODEL, outcome, published(output)))


def published(path: Path) -> Published:
    status = path.stat()
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Published(status.st_size, status.st_mtime_ns, content)


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
    assert todo(make_config(tmp_path, masks=str(tmp_path / "masks"), options={"crf": 30})) == 1
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
        Path(record_of(task.output)).write_text(damage)
        assert todo() == 1
    Path(record_of(task.output)).unlink()
    assert todo() == 1


def test_records_survive_the_way_through_json(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    (task,) = plan_batch(make_config(tmp_path), MODEL).tasks
    outcome = VideoOutcome(task.name, task.video, task.output, "done", psnr=31.5)
    text = write_record(task, MODEL, outcome, Published(12, 34, "ab"))
    assert "NaN" not in text
    found = parse_record(text.encode())
    assert found["bytes"] == 12
    assert found["outcome"].psnr == 31.5
    assert found["outcome"].ssim != found["outcome"].ssim  # nan again
    assert known_values(found["outcome"]) == known_values(outcome)


def known_values(outcome: VideoOutcome) -> dict:
    return {key: value for key, value in vars(outcome).items() if value == value}


def test_what_is_held_for_review_is_not_done_again(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    (task,) = plan_batch(make_config(tmp_path), MODEL).tasks
    touch(Path(task.review))
    outcome = VideoOutcome(task.name, task.video, task.review, "review",
                           quality={"seam": 2.0, "warping": None})  # fmt: skip
    file = published(Path(task.review))
    Path(record_of(task.review)).write_text(write_record(task, MODEL, outcome, file))
    plan = plan_batch(make_config(tmp_path, limits={"seam": 1.5}), MODEL)
    (settled,) = plan.settled
    assert not plan.tasks and not plan.misplaced
    assert settled.status == "skipped" and "seam 2.00" in settled.review


def write_manifest(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_manifest_says_what_is_done_to_each_video(tmp_path: Path):
    touch(tmp_path / "in/a b.mp4", tmp_path / "in/sub/b.mov", tmp_path / "m/x.png")
    touch(tmp_path / "m/sub/b.png")
    manifest = write_manifest(
        tmp_path / "list.csv",
        "video,mask,output,dilate,boxes,crf\n"
        f"a b.mp4,x.png,../../clean #1.mp4,4,,\n"
        f"sub/b.mov,,,,,20\n"
        f'{tmp_path}/in/sub/b.mov,,again.mov,,"1,2,30,40@0-2",\n'
        "missing.mp4,x.png,,,,\n"
        "a b.mp4,none.png,c.mp4,,,\n",
    )
    cfg = make_config(tmp_path, manifest=str(manifest), masks=str(tmp_path / "m"))
    plan = plan_batch(cfg, MODEL)
    tasks = {task.name: task for task in plan.all_tasks.values()}
    first, second, third, missing, _ = tasks.values()
    assert first.output == str(tmp_path / "out/__/__/clean #1.mp4")
    assert (first.mask, first.options["dilate"]) == (str(tmp_path / "m/x.png"), 4)
    assert (second.place, second.mask) == ("sub/b.mov", str(tmp_path / "m/sub/b.png"))
    assert second.options["crf"] == 20
    assert (third.place, third.mask) == ("again.mov", None)
    assert third.options["boxes"] == "1,2,30,40@0-2"
    assert missing in plan.tasks and missing.identity["input"] == {}
    (unmasked,) = plan.settled
    assert (unmasked.name, unmasked.reason) == ("c.mp4", "mask-missing")
    assert "none.png" in unmasked.message and "row 5" in unmasked.message


@pytest.mark.parametrize("named", ["mask", "boxes", "alpha"])
def test_a_row_without_a_mask_among_others_with_one_gets_no_drawn_hole(tmp_path: Path, named: str):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/b.mp4", tmp_path / "in/x.png")
    value = {"mask": "x.png", "boxes": '"1,2,30,40"', "alpha": "true"}[named]
    text = f"video,{named}\na.mp4,{value}\nb.mp4,\n"
    cfg = make_config(tmp_path, manifest=str(write_manifest(tmp_path / "in/list.csv", text)))
    plan = plan_batch(cfg, MODEL)
    assert [task.name for task in plan.tasks] == ["a.mp4"]
    (settled,) = plan.settled
    assert (settled.name, settled.reason) == ("b.mp4", "mask-missing")
    assert "row 2 names no mask" in settled.message
    write_manifest(tmp_path / "in/list.csv", f"video,{named}\na.mp4,\nb.mp4,\n")
    assert len(plan_batch(cfg, MODEL).tasks) == 2  # none has one: all are drawn, for a test


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,dilate\na.mp4,wide\n", r"dilate: 'wide'.*see row 1"),
        ("video,colour\na.mp4,red\n", r"unknown column colour; allowed: .*feather.*see row 1"),
        ('video,boxes\na.mp4,"1,2"\n', r"boxes: .*see row 1"),
        ("mask\nx.png\n", "names no video; see row 1"),
        ("video,output\na.mp4,x.mp4\nb.mp4,x.mp4\n", r"several rows, such as 'x\.mp4'"),
        ("video\n", "has no rows"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, text: str, words: str):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/b.mp4")
    cfg = make_config(tmp_path, manifest=str(write_manifest(tmp_path / "list.csv", text)))
    with pytest.raises(BatchError, match=words):
        plan_batch(cfg, MODEL)


def test_no_file_is_passed_over_in_silence(tmp_path: Path):
    source = tmp_path / "in"
    for name in ("a.mp4", "b.MPG", "sub/c.m2ts", "d.braw", "sub/noending", "e.png", ".f.tmp",
                 "notes.txt", "done/a.mp4", "done/x.partial", "masks/x.bin"):  # fmt: skip
        touch(source / name)
    touch(source / "masks/a.png", source / "masks/b.png", source / "masks/sub/c.png")
    cfg = make_config(tmp_path, output=str(source / "done"), masks=str(source / "masks"))
    plan = plan_batch(cfg, MODEL)
    assert [task.name for task in plan.tasks] == ["a.mp4", "b.MPG", "sub/c.m2ts"]
    found = {outcome.name: (outcome.reason, outcome.video) for outcome in plan.settled}
    assert found == {
        name: ("unsupported", str(source / name)) for name in ("d.braw", "sub/noending")
    }


@pytest.mark.parametrize("held", [False, True])
def test_company_that_comes_later_renames_nothing_finished(tmp_path: Path, held: bool):
    touch(tmp_path / "in/b.mp4", tmp_path / "in/c.mp4")
    for task in plan_batch(make_config(tmp_path), MODEL).tasks:
        finish(task)
        if held:
            review = Path(task.review)
            review.parent.mkdir(parents=True, exist_ok=True)
            for end in ("", ".json"):
                Path(task.output + end).rename(f"{review}{end}")
    touch(tmp_path / "in/B.mp4")
    plan = plan_batch(make_config(tmp_path), MODEL)
    (task,) = plan.tasks
    assert task.name == "B.mp4" and task.place.startswith("B.") and task.place != "B.mp4"
    assert plan.all_tasks["b.mp4"].place == "b.mp4"
    finish(task)
    assert not plan_batch(make_config(tmp_path), MODEL).tasks
    (tmp_path / "in/b.mp4").unlink()
    assert not plan_batch(make_config(tmp_path), MODEL).tasks, "what is left is not made again"


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(("first", "later"), [("walk/1.png", "walk.mp4"), ("b.avi", "b.avi.mkv")])
def test_no_input_takes_the_name_of_anothers_finished_output(
    tmp_path: Path, first: str, later: str, held: bool
):
    """Though it is what the new one is called, and the finished one is not."""
    touch(tmp_path / "in" / first)
    (task,) = plan_batch(make_config(tmp_path), MODEL).tasks
    assert task.place == later
    finish(task, task.review if held else task.output)
    limits = {"limits": {"seam": 0.5}} if held else {}
    touch(tmp_path / "in" / later)
    plan = plan_batch(make_config(tmp_path, **limits), MODEL)
    (new,) = plan.tasks
    assert new.name == later and new.place != later and plan.all_tasks[task.name].place == later
    assert [outcome.name for outcome in plan.settled] == [task.name] and not plan.misplaced
    finish(new)
    assert not plan_batch(make_config(tmp_path), MODEL).tasks
    shutil.rmtree(tmp_path / "in/walk", ignore_errors=True)
    (tmp_path / "in/b.avi").unlink(missing_ok=True)
    assert not plan_batch(make_config(tmp_path), MODEL).tasks, "what is left is not made again"


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_record_that_cannot_be_read_is_no_ones(tmp_path: Path, damage: str):
    touch(tmp_path / "in/walk/1.png", tmp_path / "in/walk.mp4", tmp_path / "out/walk.mp4")
    (tmp_path / "out/walk.mp4.json").write_text(damage)
    tasks = plan_batch(make_config(tmp_path), MODEL).tasks
    assert {task.name: task.place == "walk.mp4" for task in tasks} == {
        "walk.mp4": True, "walk": False,
    }  # fmt: skip
