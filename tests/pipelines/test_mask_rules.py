"""Masks by rule: patterns are filled in for each video, boxes are for all, errors say which."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.batch_masks import BatchError
from pipelines.batch_plan import plan_batch
from pipelines.config_file import ConfigError
from pipelines.mask_rules import filled_in, place_of
from tests.pipelines.one_process import complete_all, config, picture_clip
from tests.pipelines.test_batch_plan import MODEL, make_config, touch, write_manifest


def masks_of(plan, folder: Path) -> dict[str, str]:
    return {task.name: str(Path(task.mask).relative_to(folder)) for task in plan.tasks}


@pytest.mark.parametrize(
    ("pattern", "name", "place", "mask"),
    [
        ("s3://b/m/{stem}_mask.png", "a/b.v2.mov", "s3://b/m", "b.v2_mask.png"),
        ("s3://b/m/{parent}/{name}.mkv", "a/b.mov", "s3://b/m", "a/b.mov.mkv"),
        ("s3://b/{parent}/m/{stem}", "b.mov", "s3://b", "m/b"),
        ("s3://b/x-{stem}/m.png", "a/walk.v2", "s3://b", "x-walk.v2/m.png"),
        ("/{stem}.png", "{name}.mp4", "/", "{name}.png"),
    ],
)
def test_patterns_are_filled_in(pattern: str, name: str, place: str, mask: str):
    assert (place_of(pattern), filled_in(pattern, name)) == (place, mask)


def test_a_pattern_finds_files_and_folders(tmp_path: Path):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/sub/b.mov", tmp_path / "in/c.mp4")
    touch(tmp_path / "m/a_mask.png", tmp_path / "m/sub/b_mask.png", tmp_path / "m/c_mask.png/0.png")
    rule = f"{tmp_path}/m/{{parent}}/{{stem}}_mask.png"
    plan = plan_batch(make_config(tmp_path, masks=rule), MODEL)
    assert masks_of(plan, tmp_path / "m") == {
        "a.mp4": "a_mask.png", "sub/b.mov": "sub/b_mask.png", "c.mp4": "c_mask.png",
    }  # fmt: skip
    assert plan.tasks[1].identity["mask"] == {"pictures": 1} | plan.tasks[1].identity["mask"]
    flat = plan_batch(make_config(tmp_path, masks=f"file://{tmp_path}/m/{{stem}}_mask.png"), MODEL)
    (missing,) = flat.settled
    assert (missing.name, missing.reason) == ("sub/b.mov", "mask-missing")
    for words in (f"the rule {tmp_path}/m/{{stem}}_mask.png", f"it is {tmp_path}/m/b_mask.png"):
        assert words in missing.message


def test_masks_beside_their_videos_are_no_videos(tmp_path: Path):
    source = tmp_path / "in"
    touch(source / "a.mp4", source / "a_mask.mp4", source / "sub/b.mp4", source / "sub/b_mask.mp4")
    touch(source / "other_mask.mp4", source / "walk/0.png", source / "walk_mask.mp4")
    plan = plan_batch(make_config(tmp_path, masks=f"{source}/{{parent}}/{{stem}}_mask.mp4"), MODEL)
    assert masks_of(plan, source) == {
        "a.mp4": "a_mask.mp4", "sub/b.mp4": "sub/b_mask.mp4", "walk": "walk_mask.mp4",
    }  # fmt: skip
    assert [outcome.name for outcome in plan.settled] == ["other_mask.mp4"]  # (nothing in silence)
    touch(source / "holes/a.png", source / "holes/sub/b.png", source / "holes/walk.png")
    plan = plan_batch(make_config(tmp_path, masks=f"{source}/holes/{{parent}}/{{stem}}.png"), MODEL)
    assert set(masks_of(plan, source)) == {"a.mp4", "sub/b.mp4", "walk"}
    assert not [name for name in plan.all_tasks if name.startswith("holes")]


def test_a_pattern_in_a_bucket(tmp_path: Path, s3_bucket: str, s3_server: str):
    from pipelines.storage import write_bytes

    for key in ("in/a#1.mp4", "in/sub/b.mp4", "masks/a#1_mask.png", "masks/b_mask.png"):
        write_bytes(key.encode(), f"{s3_bucket}/{key}", s3_server)
    ends = {"videos": f"{s3_bucket}/in", "masks": f"{s3_bucket}/masks/{{stem}}_mask.png"}
    cfg = config(tmp_path, data={"videos": "x", "s3_endpoint": s3_server}, inference=ends)
    assert [task.mask for task in plan_batch(cfg, MODEL).tasks] == [
        f"{s3_bucket}/masks/a#1_mask.png", f"{s3_bucket}/masks/b_mask.png",
    ]  # fmt: skip


def test_a_box_for_all(tmp_path: Path):
    from cssta.video import read_frames, write_video

    write_video(tmp_path / "in/a.mp4", picture_clip(6), 24)
    cfg = config(
        tmp_path, inference={"masks": "box:8,8,16,16@0-0.1", "options": {"lossless": True}}
    )
    (task,) = plan_batch(cfg, MODEL).tasks
    assert (task.mask, task.options["boxes"]) == (None, "8,8,16,16@0-0.1")
    (outcome,) = complete_all(cfg).values()
    assert (outcome.status, outcome.hole_frames) == ("done", 3), outcome.message
    made = read_frames(outcome.output)
    assert (abs(made[0, 9:23, 9:23].astype(int) - 90) < 3).all() and made[5, 16, 16, 1] > 120

    touch(tmp_path / "in/b.mp4", tmp_path / "in/x.png")
    text = 'video,mask,boxes\na.mp4,x.png,\na.mp4,,"1,2,3,4"\nb.mp4,,\n'
    manifest = str(write_manifest(tmp_path / "in/list.csv", text))
    plan = plan_batch(
        config(tmp_path, inference={"manifest": manifest, "masks": "box:5,6,7,8"}), MODEL
    )
    assert [(bool(task.mask), task.options["boxes"]) for task in plan.tasks] == [
        (True, ""), (False, "1,2,3,4"), (False, "5,6,7,8"),
    ]  # fmt: skip


def test_a_row_goes_before_the_rule(tmp_path: Path):
    touch(
        tmp_path / "in/a.mp4", tmp_path / "in/b.mp4", tmp_path / "m/b-m.png", tmp_path / "m/x.png"
    )
    manifest = write_manifest(tmp_path / "list.csv", "video,mask\na.mp4,x.png\nb.mp4,\n")
    rule = f"{tmp_path}/m/{{stem}}-m.png"
    plan = plan_batch(make_config(tmp_path, manifest=str(manifest), masks=rule), MODEL)
    assert masks_of(plan, tmp_path / "m") == {"a.mp4": "x.png", "b.mp4": "b-m.png"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("box:1,2", "is not a box"),
        ("box:", "names no box"),
        ("s3://bucket/{stem}/{id}.png", r"\{id\} is not known; .*\{parent\}"),
        ("s3://{parent}/{stem}.png", "the bucket has to be named"),
    ],
)
def test_what_is_no_rule_is_told_at_once(tmp_path: Path, rule: str, words: str):
    with pytest.raises(ConfigError, match=rf"inference\.masks: .*{words}"):
        make_config(tmp_path, masks=rule)


def test_a_place_that_is_not_there_is_told(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    for rule in (f"{tmp_path}/none/{{stem}}.png", f"{tmp_path}/none/{{video}}.png"):
        with pytest.raises(
            BatchError, match=r"inference\.masks .*\{.*none.*does not exist|use \{stem"
        ):
            plan_batch(make_config(tmp_path, masks=rule), MODEL)
    with pytest.raises(BatchError, match=r"is inference\.masks"):
        plan_batch(make_config(tmp_path, masks=f"{tmp_path}/out/{{stem}}.png"), MODEL)
