"""What is published is what was made, stands where its figures put it, and is not made again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import pytest
from pyarrow import fs as pafs

from cssta.video import write_video
from pipelines import batch_finished, storage
from pipelines.batch_finished import put_in_place
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import record_of
from pipelines.storage import StorageError
from tests.pipelines.one_process import MODEL, complete_one, config, picture_clip, settings_of

LOOSE, STRICT = {"seam": 99.0}, {"seam": 0.01}


@pytest.fixture
def finished(tmp_path: Path):
    """The task of a video that was completed and published."""
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    cfg = config(tmp_path)
    (task,) = plan_batch(cfg, MODEL).tasks
    outcome = complete_one(task, settings_of(cfg))
    assert outcome.status == "done" and outcome.quality["seam"] > 0.01
    return task


def plan(tmp_path: Path, **inference):
    return plan_batch(config(tmp_path, inference=inference), MODEL)


def files(task) -> list[str]:
    root = Path(task.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_damage_of_the_same_size_is_noticed(finished, tmp_path: Path):
    path = Path(finished.output)
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert len(plan(tmp_path).tasks) == 1
    # Whoever damages it and gives it its old time is found out by reading it all.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not plan(tmp_path).tasks
    assert len(plan(tmp_path, verify=True).tasks) == 1


def test_a_copy_of_a_bucket_is_as_good(finished, tmp_path: Path):
    """Its files have other times; their content decides."""
    Path(finished.output).touch()
    assert not plan(tmp_path).tasks and not plan(tmp_path, verify=True).tasks


def test_changed_limits_move_what_is_finished(finished, tmp_path: Path, monkeypatch):
    content = Path(finished.output).read_bytes()
    monkeypatch.setattr("pipelines.complete_part.complete_part", None)  # nothing is made again
    held = plan(tmp_path, limits=STRICT)
    (outcome,) = held.settled
    assert not held.tasks and "seam" in outcome.review and outcome.status == "skipped"
    assert files(finished) == ["a.mp4", "a.mp4.json"], "a plan moves nothing"
    for limits, status, place in (
        (STRICT, "review", "_review/a.mp4"),
        (LOOSE, "done", "a.mp4"),
    ):
        found = plan(tmp_path, limits=limits).misplaced["a.mp4"]
        put_in_place(finished, MODEL, found, None)
        assert files(finished) == [place, f"{place}.json"]
        uri = Path(finished.root) / place
        record = json.loads(Path(record_of(str(uri))).read_text())
        assert uri.read_bytes() == content
        assert (record["outcome"]["status"], record["outcome"]["output"]) == (status, str(uri))
        again = plan(tmp_path, limits=limits, verify=True)
        assert not again.tasks and not again.misplaced


def test_what_lacks_a_figure_that_a_limit_needs_is_made_again(tmp_path: Path):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    bare = {"quality": False, "self_test_frames": 0}
    (task,) = plan(tmp_path, **bare).tasks
    outcome = complete_one(task, settings_of(config(tmp_path, inference=bare)))
    assert (outcome.status, outcome.quality) == ("done", {})
    assert not plan(tmp_path).tasks, "no limit needs a figure"
    assert not plan(tmp_path, limits=LOOSE, quality=False).tasks, "none is to be measured"
    tested = {"self_test_frames": 4, "limits": {"self_test": 1.0}}
    for given in ({"limits": LOOSE, "self_test_frames": 0}, tested):
        (again,) = plan(tmp_path, **given).tasks
        # Should it still lack it once it is made, it does not pass.
        held = batch_finished.judged(outcome, again, given["limits"])
        assert held.status == "review" and "was not measured" in held.review
        assert complete_one(again, settings_of(config(tmp_path, inference=given))).status == "done"
        assert not plan(tmp_path, **given).tasks


@pytest.mark.parametrize("step", range(5))
def test_a_move_that_is_cut_off_anywhere_loses_nothing(
    finished, tmp_path: Path, monkeypatch, step: int
):
    content = Path(finished.output).read_bytes()
    steps = iter(range(99))

    def cut(real):
        def call(*arguments):
            if next(steps) == step:
                raise StorageError("the process is killed here")
            return real(*arguments)

        return call

    found = plan(tmp_path, limits=STRICT).misplaced["a.mp4"]
    with monkeypatch.context() as patch:
        for name in ("copy", "delete", "write_bytes"):
            patch.setattr(storage, name, cut(getattr(storage, name)))
        with pytest.raises(StorageError, match="killed here"):
            put_in_place(finished, MODEL, found, None)
    later = plan(tmp_path, limits=STRICT)
    assert not later.tasks, "finished work is lost"
    put_in_place(finished, MODEL, later.misplaced["a.mp4"], None)
    assert files(finished) == ["_review/a.mp4", "_review/a.mp4.json"]
    assert Path(finished.review).read_bytes() == content


def test_what_nobody_recorded_is_not_removed(finished, tmp_path: Path):
    """A file under the output's name that no record tells of may be anybody's."""
    put_in_place(finished, MODEL, plan(tmp_path, limits=STRICT).misplaced["a.mp4"], None)
    Path(finished.output).write_bytes(b"anybody's")
    found = plan(tmp_path, limits=STRICT).misplaced["a.mp4"]
    put_in_place(finished, MODEL, found, None)
    assert files(finished) == ["_outdated/a.mp4", "_review/a.mp4", "_review/a.mp4.json"]
    assert Path(finished.outdated).read_bytes() == b"anybody's"


def test_an_output_that_vanishes_is_told(finished):
    Path(finished.output).unlink()
    outcome = batch_finished.judged(
        batch_finished.parse_record(Path(record_of(finished.output)).read_bytes())["outcome"],
        finished,
        {},
    )
    with pytest.raises(StorageError, match="is gone"):
        batch_finished.write(finished, MODEL, outcome, 3, "ab", None)


def test_nothing_vouches_for_what_another_driver_put_there(finished, monkeypatch):
    """It publishes under the same name just before the record of the first is written."""
    size = Path(finished.output).stat().st_size
    record = Path(record_of(finished.output))
    settings = settings_of(config(Path(finished.root).parent))
    real = storage.publish
    for theirs in (b"theirs", bytes(size)):
        record.unlink()

        def meanwhile(local: Path, uri: str, *more, theirs: bytes = theirs) -> None:
            real(local, uri, *more)
            if uri == finished.output:
                Path(uri).write_bytes(theirs)

        monkeypatch.setattr(storage, "publish", meanwhile)
        outcome = complete_one(finished, settings)
        assert (outcome.status, outcome.reason) == ("failed", "storage")
        assert "end the other batch" in outcome.message and not record.exists()
        monkeypatch.undo()
        assert complete_one(finished, settings).status == "done"
        assert json.loads(record.read_text())["sha256"] == storage.sha256(finished.output)


def test_a_foreign_file_under_an_outputs_name_is_kept(finished, tmp_path: Path):
    """Without a record, or with one that tells of something else: as when a user edited it."""
    cfg = config(tmp_path)
    outdated = Path(finished.outdated)
    for unrecorded, theirs in ((True, b"anybody's"), (False, b"edited")):
        Path(finished.output).write_bytes(theirs)
        if unrecorded:
            Path(record_of(finished.output)).unlink()
        (task,) = plan(tmp_path).tasks
        assert complete_one(task, settings_of(cfg)).status == "done"
        assert files(task) == ["_outdated/a.mp4", "a.mp4", "a.mp4.json"]
        assert outdated.read_bytes() == theirs
    outdated.unlink()
    # Our own earlier output is replaced by its successor.
    (tmp_path / "in/a.mp4").touch()
    (task,) = plan(tmp_path).tasks
    assert complete_one(task, settings_of(cfg)).status == "done"
    assert files(task) == ["a.mp4", "a.mp4.json"]


def test_the_output_of_a_video_that_is_gone_is_kept_when_another_takes_its_name(tmp_path: Path):
    """Its record vouches for it, but for no earlier version of the other."""
    cfg, walk = config(tmp_path), tmp_path / "in/walk"
    walk.mkdir(parents=True)
    for number, frame in enumerate(picture_clip(4)):
        cv2.imwrite(str(walk / f"{number}.png"), frame)
    (task,) = plan(tmp_path).tasks
    assert complete_one(task, settings_of(cfg)).status == "done"
    earlier = Path(task.output).read_bytes()
    shutil.rmtree(walk)
    write_video(tmp_path / "in/walk.mp4", picture_clip(12), 24)
    (task,) = plan(tmp_path).tasks
    assert task.place == "walk.mp4" and complete_one(task, settings_of(cfg)).status == "done"
    assert files(task) == ["_outdated/walk.mp4", "walk.mp4", "walk.mp4.json"]
    assert Path(task.outdated).read_bytes() == earlier != Path(task.output).read_bytes()


def test_what_moves_to_its_name_takes_it_from_no_foreign_file(finished, tmp_path: Path):
    put_in_place(finished, MODEL, plan(tmp_path, limits=STRICT).misplaced["a.mp4"], None)
    Path(finished.output).write_bytes(b"anybody's")
    put_in_place(finished, MODEL, plan(tmp_path, limits=LOOSE).misplaced["a.mp4"], None)
    assert files(finished) == ["_outdated/a.mp4", "a.mp4", "a.mp4.json"]
    assert Path(finished.outdated).read_bytes() == b"anybody's"


def test_an_output_that_could_not_be_recorded_is_not_foreign(finished, tmp_path, monkeypatch):
    """As after a kill between the two."""
    (tmp_path / "in/a.mp4").touch()
    (task,) = plan(tmp_path).tasks
    settings = settings_of(config(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(batch_finished, "write", None)
        assert complete_one(task, settings).status == "failed"
    assert not Path(record_of(task.output)).exists() and Path(task.output).exists()
    assert complete_one(task, settings).status == "done"
    assert files(task) == ["a.mp4", "a.mp4.json"]


def test_an_output_that_is_damaged_on_its_way_never_has_its_name(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.001)
    (tmp_path / "in/a.mp4").touch()
    (task,) = plan(tmp_path).tasks
    real, damaged, named = pafs.copy_files, [], []

    def damaging(source: str, destination: str, **options) -> None:
        real(source, destination, **options)
        if Path(source).name.startswith("whole") and len(damaged) < 2:
            damaged.append(bytes(Path(source).stat().st_size))
            Path(destination).write_bytes(damaged[-1])
        named.append(Path(task.output).read_bytes())

    monkeypatch.setattr(pafs, "copy_files", damaging)
    assert complete_one(task, settings_of(config(tmp_path))).status == "done"
    named.append(Path(task.output).read_bytes())
    assert len(damaged) == 2 and not set(damaged) & set(named)
