"""Whole videos: verified, judged, published with their record, or failed with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.video import VideoError, iter_frames, probe, read_frames, write_video
from pipelines import assemble_video as module
from pipelines import storage
from pipelines.batch_lease import LeaseError
from pipelines.batch_masks import ChangedInputError
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity, record_of
from pipelines.staging import Staging, UnstagedError
from pipelines.storage import StorageError, exists, local_copy, publish, write_bytes
from pipelines.video_failures import KEEPING, as_failure
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
def one_video(tmp_path: Path):
    """Configuration, task and settings of a video of 12 frames."""
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    cfg = config(tmp_path)
    (task,) = plan_batch(cfg, MODEL).tasks
    return cfg, task, settings_of(cfg)


def test_what_is_published_has_a_record_and_leaves_no_work(one_video):
    cfg, task, settings = one_video
    outcome = complete_one(task, settings)
    assert outcome.status == "done", outcome.message
    record = json.loads(Path(record_of(task.output)).read_text())
    status = Path(task.output).stat()
    assert (record["bytes"], record["modified"]) == (status.st_size, status.st_mtime_ns)
    assert record["sha256"] == sha256(Path(task.output).read_bytes()).hexdigest()
    assert record["identity"]["input"]["bytes"] == (Path(task.video)).stat().st_size
    assert record["model"]["digest"] == MODEL.digest and record["software"].startswith("cssta ")
    assert record["outcome"]["seconds"] > 0
    assert {"seam", "warping", "self_test"} == record["outcome"]["quality"].keys()
    assert sorted(p.name for p in Path(task.root).rglob("*") if p.is_file()) == [
        "a.mp4", "a.mp4.json",
    ]  # fmt: skip
    # Again, as when its process was killed before it could say so: nothing is done twice.
    changed = Path(task.output).stat().st_mtime_ns
    assert complete_one(task, settings) == outcome
    assert Path(task.output).stat().st_mtime_ns == changed
    assert not plan_batch(cfg, MODEL).tasks


def test_output_that_fails_verification_is_not_published(one_video, monkeypatch):
    _, task, settings = one_video
    real = module.assemble

    def damaging(partial, *arguments):
        real(partial, *arguments)
        content = bytearray(partial.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        partial.write_bytes(content)

    monkeypatch.setattr(module, "assemble", damaging)
    outcome = complete_one(task, settings)
    assert (outcome.status, outcome.reason) == ("failed", "unverified"), outcome.message
    assert outcome.message.startswith(task.output)
    assert not Path(task.output).exists()


@pytest.mark.parametrize("lost", ["a.mp4.json", "a.mp4"])
def test_a_failure_while_publishing_leaves_the_video_to_be_done(one_video, monkeypatch, lost: str):
    cfg, task, settings = one_video
    complete_one(task, settings)
    (Path(cfg.inference.videos) / "a.mp4").touch()  # so that it has to be done again
    (task,) = plan_batch(cfg, MODEL).tasks

    def failing(local: Path, uri: str, *more) -> None:
        if uri.endswith(lost):
            raise StorageError(f"{uri}: no space left")
        publish(local, uri, *more)

    monkeypatch.setattr(storage, "publish", failing)
    outcome = complete_one(task, settings)
    assert (outcome.status, outcome.reason) == ("failed", "storage")
    assert "no space left" in outcome.message
    assert not exists(record_of(task.output)), "the old record vouches for what may be new"
    # What stands under the final name is whole, be it old or new.
    assert sum(len(chunk) for chunk in iter_frames(task.output)) == 12

    monkeypatch.undo()
    assert complete_parts(task, settings) == [], "the segments were done already"
    assert complete_one(task, settings).status == "done"
    assert not plan_batch(cfg, MODEL).tasks


@pytest.mark.parametrize("refusals", [2, 8])  # (eight: an outage of minutes)
def test_storage_that_comes_back_is_waited_for(one_video, monkeypatch, refusals: int):
    _, task, settings = one_video
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.001)
    failures = iter(range(refusals))

    def flaky(local: Path, uri: str, *more) -> None:
        if uri == task.output and next(failures, None) is not None:
            raise StorageError(f"{uri}: connection reset", transient=True)
        publish(local, uri, *more)

    monkeypatch.setattr(storage, "publish", flaky)
    assert complete_one(task, settings).status == "done"
    assert next(failures, None) is None


def test_a_video_beyond_a_limit_is_held_for_review(one_video, tmp_path):
    cfg, task, _ = one_video
    strict = config(tmp_path, inference={"self_test_frames": 4, "limits": {"self_test": 90.0}})
    (outcome,) = complete_all(strict).values()
    assert outcome.status == "review" and "self_test" in outcome.review
    assert outcome.output == str(tmp_path / "out/_review/a.mp4")
    assert not Path(task.output).exists()
    assert probe(outcome.output).frames == 12
    assert not plan_batch(strict, MODEL).tasks

    (Path(cfg.inference.videos) / "a.mp4").touch()
    (again,) = complete_all(cfg).values()
    assert again.status == "done"
    assert not list((tmp_path / "out/_review").rglob("*.mp4*")), "what was held back is outdated"

    # The other way round what was published stays to be had, but not under its name.
    (Path(cfg.inference.videos) / "a.mp4").touch()
    published = Path(task.output).read_bytes()
    (held,) = complete_all(strict).values()
    assert held.status == "review" and not list((tmp_path / "out").glob("a.mp4*"))
    assert Path(task.outdated).read_bytes() == published
    record = json.loads(Path(record_of(task.outdated)).read_text())
    assert record["sha256"] == sha256(published).hexdigest()


@pytest.mark.parametrize("which", ["video", "mask"])
def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path, which: str):
    write_video(tmp_path / "in/a.mp4", picture_clip(6), 24)
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/a.png"), np.full((32, 48), 255, np.uint8))
    cfg = config(tmp_path, inference={"masks": str(tmp_path / "masks")})
    (task,) = plan_batch(cfg, MODEL).tasks
    settings = settings_of(cfg)
    complete_parts(task, settings)
    Path(getattr(task, which)).touch()
    with pytest.raises(ChangedInputError, match="run the batch again") as caught:
        module.assemble_video(task, settings)
    reason, message = as_failure(task, caught.value)
    assert reason == "input-changed" and reason not in KEEPING
    assert getattr(task, which) in message and not Path(task.output).exists()
    (outcome,) = complete_all(cfg).values()
    assert outcome.status == "done"


def test_a_truncated_video_is_completed_as_far_as_it_goes_and_says_so(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (24, 64, 64, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "whole.mp4", noise, 24)
    content = whole.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    (outcome,) = complete_all(config(tmp_path)).values()
    assert (outcome.status, outcome.reason) == ("done", "truncated"), outcome.message
    assert "of 24 declared frames" in outcome.message
    assert 0 < probe(outcome.output).frames == outcome.frames < 24


def test_frame_folders_are_completed_too(tmp_path: Path):
    folder = tmp_path / "in/walk.v2"
    folder.mkdir(parents=True)
    for number, frame in enumerate(picture_clip(5)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame[..., ::-1])
    cfg = config(tmp_path)
    outcomes = complete_all(cfg)
    assert outcomes["walk.v2"].status == "done", outcomes["walk.v2"].message
    assert probe(tmp_path / "out/walk.v2.mp4").frames == 5
    assert not plan_batch(cfg, MODEL).tasks
    cv2.imwrite(str(folder / "005.png"), picture_clip(1)[0])
    assert len(plan_batch(cfg, MODEL).tasks) == 1


def test_from_and_to_an_s3_bucket(s3_bucket: str, s3_server: str, tmp_path: Path):
    write_video(tmp_path / "a.mp4", picture_clip(5), 24)
    (tmp_path / "bad.mp4").write_text("no video")
    mask = np.full((5, 32, 48, 3), 255, np.uint8)
    write_video(tmp_path / "mask.mp4", mask[:4], 24)
    names = ["sub/a.mp4", "b c.mp4", "#1 100%.mp4", "日本/é.mp4"]
    for local, key in (
        *(("a.mp4", f"in/{name}") for name in names),
        ("bad.mp4", "in/bad.mp4"),
        ("mask.mp4", "masks/sub/a.mp4"),
    ):
        publish(tmp_path / local, f"{s3_bucket}/{key}", s3_server)
    ends = {"videos": f"{s3_bucket}/in", "output": f"{s3_bucket}/out"}
    data = {"videos": f"{s3_bucket}/in", "s3_endpoint": s3_server}
    cfg = config(tmp_path, data=data, inference=ends)
    outcomes = complete_all(cfg)
    assert {name: o.status for name, o in outcomes.items()} == {
        "bad.mp4": "failed", **dict.fromkeys(names, "done"),
    }, [o.message for o in outcomes.values()]  # fmt: skip
    assert f"{s3_bucket}/in/bad.mp4" in outcomes["bad.mp4"].message
    for name in names:
        with local_copy(f"{s3_bucket}/out/{name}", s3_endpoint=s3_server) as path:
            assert len(read_frames(path)) == 5
    assert [task.name for task in plan_batch(cfg, MODEL).tasks] == ["bad.mp4"]

    masked = {**ends, "masks": f"{s3_bucket}/masks"}
    cfg = config(tmp_path, data=data, inference=masked)
    plan = plan_batch(cfg, MODEL)
    assert {o.reason for o in plan.settled} == {"mask-missing"}
    (task,) = plan.tasks
    outcome = complete_one(task, settings_of(cfg))
    assert (outcome.name, outcome.reason) == ("sub/a.mp4", "mask-length")
    assert f"{s3_bucket}/masks/sub/a.mp4" in outcome.message


def test_what_is_missing_may_have_been_published_by_another(one_video, monkeypatch):
    """Such as a process that was taken for dead; it publishes between two looks of this one."""
    _, task, settings = one_video
    complete_parts(task, settings)
    real = module.survey_task

    def meanwhile(*arguments):
        monkeypatch.setattr(module, "survey_task", real)
        other = module.assemble_video(task, settings)
        assert other.status == "done" and not Path(task.work).exists()
        return real(*arguments)

    monkeypatch.setattr(module, "survey_task", meanwhile)
    outcome = module.assemble_video(task, settings)
    assert outcome.status == "done" and Path(task.output).exists()


@pytest.mark.parametrize("when", ["before", "once it is uploaded", "and has ended"])
def test_nothing_is_published_over_what_a_successor_did(one_video, monkeypatch, when: str):
    """A driver dies and its assembler lives on; another begins, with a newer model."""
    cfg, task, _ = one_video
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.001)
    newer = ModelIdentity("folder", "4", "another digest")
    (successor,) = plan_batch(cfg, newer).tasks
    lease = f"{task.root}/_work/lease/driver.json"
    ours, theirs = (
        replace(settings_of(cfg, model), lease=token)
        for model, token in ((MODEL, "ours"), (newer, "theirs"))
    )

    def succeed() -> dict[Path, bytes]:
        write_bytes(b'{"token": "theirs", "pid": 7, "host": "there"}', lease)
        assert complete_one(successor, theirs).status == "done"
        if when == "and has ended":
            storage.delete(lease)
        return {path: path.read_bytes() for path in Path(task.root).glob("a.mp4*")}

    def uploaded(local: Path, uri: str, endpoint, temporary, digest, check) -> None:
        monkeypatch.setattr(storage, "publish", publish)

        def last_look() -> None:
            published.update(succeed())
            check()

        publish(local, uri, endpoint, temporary, digest, last_look)

    write_bytes(b'{"token": "ours"}', lease)
    complete_parts(task, ours)
    published: dict[Path, bytes] = {}
    if when == "once it is uploaded":
        monkeypatch.setattr(storage, "publish", uploaded)
    else:
        published = succeed()
    with pytest.raises(StorageError if when == "and has ended" else LeaseError):
        module.assemble_video(task, ours)
    assert len(published) == 2
    assert {path: path.read_bytes() for path in Path(task.root).glob("a.mp4*")} == published


def test_joining_gives_signs_of_life_at_every_packet(one_video, monkeypatch):
    """A long video is joined for longer than a watchdog waits."""
    _, task, settings = one_video
    complete_parts(task, settings)
    signs, before_verifying = [], []
    real = module.verify

    def verify(*arguments):
        before_verifying.append(len(signs))
        return real(*arguments)

    monkeypatch.setattr(module, "verify", verify)
    assert module.assemble_video(task, settings, lambda: signs.append(1)).status == "done"
    assert before_verifying[0] >= 12 and len(signs) >= 24


@pytest.mark.parametrize("damage", ["gone", "zeros", "one bit"])
def test_segments_that_are_gone_or_damaged_are_lost_and_the_others_kept(one_video, damage: str):
    _, task, settings = one_video
    complete_parts(task, settings)
    path = Path(Staging(task, None).segment(0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(len(content)) if damage == "zeros" else content)
    with pytest.raises(UnstagedError) as caught:
        module.assemble_video(task, settings)
    reason, message = as_failure(task, caught.value)
    assert reason == "lost" and reason in KEEPING and "[0]" in message
    assert complete_parts(task, settings) == [0]
    assert complete_one(task, settings).status == "done"


def test_a_segment_that_is_damaged_on_its_way_from_a_bucket_is_found_out(
    s3_bucket: str, s3_server: str, tmp_path: Path, monkeypatch
):
    write_video(tmp_path / "in/a.mp4", picture_clip(6), 24)
    ends = {"output": f"{s3_bucket}/out"}
    cfg = config(tmp_path, data={"videos": "x", "s3_endpoint": s3_server}, inference=ends)
    (task,) = plan_batch(cfg, MODEL).tasks
    settings = settings_of(cfg)
    complete_parts(task, settings)
    real = storage.fetch

    def damaging(uri: str, folder: Path, endpoint: str | None) -> Path:
        path = real(uri, folder, endpoint)
        if "segment" in path.name:
            path.write_bytes(bytes(path.stat().st_size))
        return path

    with monkeypatch.context() as patch:
        patch.setattr(storage, "fetch", damaging)
        with pytest.raises(UnstagedError):
            module.assemble_video(task, settings)
    assert complete_one(task, settings).status == "done"


def test_staged_work_is_kept_unless_the_input_or_the_result_is_at_fault(one_video):
    _, task, _ = one_video
    path = Path(task.video)
    for error, kept in (
        (RuntimeError("no such kernel"), True),
        (OSError("gone"), True),
        (MemoryError(), True),
        (VideoError(path, "unwritable", "the disk is full", "Make room"), True),
        (VideoError(path, "corrupt", "is damaged", "Copy it again"), False),
        (VideoError(path, "unverified", "differs", "Report this"), False),
        (VideoError(path, "mask-length", "is short", "Give another"), False),
    ):
        assert (as_failure(task, error)[0] in KEEPING) == kept, error
