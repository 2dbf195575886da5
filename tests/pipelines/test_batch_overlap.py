"""Sources survive whatever is said about where outputs go."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipelines.batch_masks import BatchError
from pipelines.batch_plan import plan_batch
from pipelines.storage_names import is_at_or_below, location
from tests.pipelines.test_batch_plan import MODEL, make_config, touch


def plan(tmp_path: Path, **inference):
    return plan_batch(make_config(tmp_path, **inference), MODEL)


def test_an_output_of_a_manifest_may_not_be_its_video(tmp_path: Path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "list.csv").write_text("video,output\na.mp4,done/a.mp4\nb.mp4,done/b.mp4\n")
    ends = {"manifest": str(tmp_path / "list.csv"), "output": str(tmp_path), "videos": None}
    assert len(plan(tmp_path, **ends).tasks) == 2
    for output in ("a.mp4", "b.mp4"):  # its own, and another's
        (tmp_path / "list.csv").write_text(f"video,output\na.mp4,{output}\nb.mp4,done/b.mp4\n")
        with pytest.raises(BatchError, match=rf"{output}.*input.*another folder"):
            plan(tmp_path, **ends)


def test_masks_are_not_written_over(tmp_path: Path):
    touch(tmp_path / "in/a.mp4", tmp_path / "masks/a.mp4")
    masks = str(tmp_path / "masks")
    with pytest.raises(BatchError, match="masks"):
        plan(tmp_path, masks=masks, output=masks)
    (tmp_path / "list.jsonl").write_text('{"video": "in/a.mp4", "mask": "masks/a.mp4"}')
    ends = {"manifest": str(tmp_path / "list.jsonl"), "videos": None}
    with pytest.raises(BatchError, match=r"masks/a\.mp4"):
        plan(tmp_path, **ends, output=masks)


@pytest.mark.parametrize("form", ["file://{}/in", "{}/in/../in", "{}/link", "{}//in/", "{}/in/."])
def test_the_same_folder_in_other_words(tmp_path: Path, form: str):
    touch(tmp_path / "in/a.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(BatchError, match=r"inference\.output"):
        plan(tmp_path, output=form.format(tmp_path))
    (tmp_path / "list.csv").write_text("video\nin/a.mp4\n")
    with pytest.raises(BatchError, match=r"inference\.output"):
        manifest = str(tmp_path / "list.csv")
        plan(tmp_path, manifest=manifest, videos=None, output=form.format(tmp_path))


def test_outputs_inside_the_input_are_left_out_in_other_words_too(tmp_path: Path):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/done/a.mp4")
    found = plan(tmp_path, output=str(tmp_path / "in/../in/done"))
    assert [task.name for task in found.tasks] == ["a.mp4"]


def test_folders_of_pictures_and_the_batch_s_own_folders(tmp_path: Path):
    out = tmp_path / "out"
    touch(tmp_path / "walk/0.png", out / "_work/x.mp4", out / "walk.mp4/0.png")
    rows = {
        f"{tmp_path}/walk": "../out/x.mp4",
        f"{out}/_work/x.mp4": "y.mp4",  # unfinished work is removed
        f"{out}/walk.mp4": "walk.mp4",
    }
    for video, output in rows.items():
        (tmp_path / "list.csv").write_text(f"video,output\n{video},{output}\n")
        ends = {"manifest": str(tmp_path / "list.csv"), "videos": None}
        root = str(tmp_path / "walk/out") if video.endswith("/walk") else str(out)
        with pytest.raises(BatchError, match="input"):
            plan(tmp_path, **ends, output=root)


def test_the_manifest_is_not_written_over(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    (tmp_path / "out").mkdir()
    manifest = tmp_path / "out/batch-ledger.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"video": ["a.mp4"]}), manifest)
    with pytest.raises(BatchError, match="ledger"):
        plan(tmp_path, manifest=str(manifest))


def test_keys_of_a_bucket_are_literal():
    assert location("s3://b/in/") == location("s3://b/in")
    assert location("s3://b/x/../in") != location("s3://b/in")
    assert is_at_or_below("s3://b/in/a", "s3://b/in") and not is_at_or_below(
        "s3://b/in", "s3://b/i"
    )
