"""A batch whose places are all given as `file://` does what it does with paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cssta.video import write_video
from pipelines.batch_names import WORK
from pipelines.batch_plan import plan_batch
from tests.pipelines.one_process import MODEL, complete_all, config, picture_clip

NAMES = ("a#1.mp4", "a#2.mp4", "%2e%2e%2fescaped.mp4", "b c%20d?.mp4")


def uris(tmp_path: Path, *keys: str) -> dict[str, str]:
    return {key: f"file://{tmp_path}/{key}" for key in keys}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in NAMES:
        for number, folder in enumerate(("videos", "masks")):
            write_video(tmp_path / "clip.mp4", picture_clip(4)[..., :: 1 - 2 * number], 24)
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / "clip.mp4").rename(tmp_path / folder / name)
    return tmp_path / "videos"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_names_neither_escape_nor_collide(videos: Path, tmp_path: Path):
    before = files(tmp_path)
    cfg = config(tmp_path, inference=uris(tmp_path, "videos", "masks", "output"))
    outcomes = complete_all(cfg)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        NAMES, "done"
    ), [outcome.message for outcome in outcomes.values()]
    assert not plan_batch(cfg, MODEL).tasks
    left = {name for name in files(tmp_path) - before if not name.startswith("scratch/")}
    left = {name for name in left if not name.startswith(f"output/{WORK}/")}
    assert left == {f"output/{name}{end}" for name in NAMES for end in ("", ".json")}


def test_manifests_name_files_by_names_and_by_uris(videos: Path, tmp_path: Path):
    rows = [
        {"video": "a#1.mp4", "mask": "a#2.mp4"},
        {"video": f"file://{videos}/a%232.mp4", "mask": f"file://{tmp_path}/masks/a%232.mp4"},
        {"video": f"{videos}/%2e%2e%2fescaped.mp4", "mask": "%2e%2e%2fescaped.mp4"},
    ]
    (tmp_path / "list #1.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    places = uris(tmp_path, "videos", "masks", "output")
    places["manifest"] = f"file://{tmp_path}/list%20%231.jsonl"
    tasks = plan_batch(config(tmp_path, inference=places), MODEL).tasks
    assert [Path(task.video).name for task in tasks] == list(NAMES[:3])
    assert [Path(task.mask).name for task in tasks] == ["a#2.mp4", "a#2.mp4", NAMES[2]]
    assert all(task.identity[key]["bytes"] for task in tasks for key in ("input", "mask"))

    places = {**uris(tmp_path, "output"), "videos": None}
    (videos / "list.csv").write_text("video\na#1.mp4\n")
    places["manifest"] = f"file://{videos}/list.csv"
    (task,) = plan_batch(config(tmp_path, inference=places), MODEL).tasks
    assert task.video == str(videos / "a#1.mp4") and task.identity["input"]
