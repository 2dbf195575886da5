"""One video: completed in pieces, verified, published with its record, or failed with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cssta.video import iter_frames, probe, read_frames, write_video
from pipelines import complete_video as module
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity, VideoOutcome
from pipelines.complete_video import (
    CompletionError,
    CompletionOptions,
    complete_video,
    pieces,
    verify,
)
from pipelines.config import JobConfig, MasksConfig
from pipelines.storage import StorageError, exists, local_copy, publish

MODEL = ModelIdentity("folder", "3", "digest")


class Engine:
    """Fills holes with grey and keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        self.calls.append((frames.copy(), masks.copy()))
        return np.where(masks[..., None], np.uint8(90), frames)


def picture_clip(frames: int) -> np.ndarray:
    """Frames (T, 32, 48, 3) whose red channel is 6 t."""
    clip = np.full((frames, 32, 48, 3), 128, np.uint8)
    clip[..., 0] = 6 * np.arange(frames)[:, None, None]
    return clip


def batch_of(tmp_path: Path, **sections) -> tuple[JobConfig, CompletionOptions]:
    inference = {"videos": str(tmp_path / "in"), "output": str(tmp_path / "out")}
    cfg = JobConfig.parse({"data": {"videos": "x"}, "inference": inference, **sections})
    options = CompletionOptions(MODEL, MasksConfig(), cfg.inference.crf, cfg.data.s3_endpoint)
    return cfg, options


def complete_all(
    cfg: JobConfig, options: CompletionOptions, engine: Engine | None = None
) -> dict[str, VideoOutcome]:
    tasks = plan_batch(cfg, MODEL).tasks
    return {task.name: complete_video(task, engine or Engine(), options) for task in tasks}


@pytest.fixture
def one_video(tmp_path: Path) -> tuple[JobConfig, CompletionOptions]:
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    return batch_of(tmp_path)


@pytest.mark.parametrize("per_piece", [12, 13, 25, 40, 1000])
def test_pieces_cover_every_frame_once_in_order(tmp_path, monkeypatch, per_piece: int):
    path = write_video(tmp_path / "a.mp4", picture_clip(40), 24)
    monkeypatch.setattr(module, "PIECE_BYTES", per_piece * 32 * 48 * 3)
    masks = np.zeros((40, 32, 48), bool)
    masks[np.arange(40), :, np.arange(40)] = True  # every frame's mask is its own
    engine = Engine()
    given = list(pieces(path, probe(path), masks, engine))

    truth = read_frames(path)
    frames, holes, results = (np.concatenate(parts) for parts in zip(*given, strict=True))
    assert (frames == truth).all()
    assert (holes == masks).all()
    assert (results == np.where(masks[..., None], 90, truth)).all()
    assert len(engine.calls) == -(-40 // per_piece)
    position = 0
    for (seen, seen_masks), (own, _, _) in zip(engine.calls, given, strict=True):
        start = max(0, position - module.CONTEXT_FRAMES)
        position += len(own)
        assert (seen == truth[start:position]).all()
        assert (seen_masks == masks[start:position]).all()


def test_scores_of_pieces_are_those_of_the_whole(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 255, (40, 4, 6, 3), dtype=np.uint8)
    write_video(tmp_path / "in/a.mp4", shapes.repeat(8, 1).repeat(8, 2), 24)
    cfg, options = batch_of(tmp_path)
    (whole,) = complete_all(cfg, options).values()
    assert whole.status == "done", whole.message
    monkeypatch.setattr(module, "PIECE_BYTES", 1)
    (task,) = plan_batch(replace_output(cfg, tmp_path / "again"), MODEL).tasks
    cut = complete_video(task, Engine(), options)
    for key in ("psnr", "ssim", "hole_psnr", "hole_ratio"):
        assert getattr(cut, key) == pytest.approx(getattr(whole, key))
    first, second = (read_frames(o.output) for o in (whole, cut))
    assert (first == second).all()


def replace_output(cfg: JobConfig, output: Path) -> JobConfig:
    inference = cfg.inference.model_copy(update={"output": str(output)})
    return cfg.model_copy(update={"inference": inference})


def test_verification_tells_what_differs(tmp_path: Path):
    source = probe(write_video(tmp_path / "a.mp4", picture_clip(12), 24))
    verify(source.path, source)
    for changed, words in (
        (replace(source, frames=13), "frames 12 instead of 13"),
        (replace(source, width=50), "width 48 instead of 50"),
        (replace(source, fps=source.fps * 2), "rate 24.000 instead of 48.000"),
    ):
        with pytest.raises(CompletionError, match=words):
            verify(source.path, changed)
    content = (tmp_path / "a.mp4").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no video at all"):
        (tmp_path / "b.mp4").write_bytes(damaged)
        with pytest.raises(CompletionError) as caught:
            verify(tmp_path / "b.mp4", source)
        assert caught.value.reason == "unverified"


def test_output_that_fails_verification_is_not_published(one_video, monkeypatch):
    cfg, options = one_video
    real = module.VideoWriter

    class Forgetful(real):
        """A writer that loses the last frame without a word, as a full disk's might."""

        def write(self, frames):
            super().write(frames[:-1])

    monkeypatch.setattr(module, "VideoWriter", Forgetful)
    (outcome,) = complete_all(cfg, options).values()
    assert (outcome.status, outcome.reason) == ("failed", "unverified")
    assert "frames 11 instead of 12" in outcome.message
    assert not Path(cfg.inference.output).exists()


@pytest.mark.parametrize("lost", [".mp4.json", ".mp4.png", ".mp4"])
def test_a_failure_while_publishing_leaves_the_video_to_be_done(one_video, monkeypatch, lost: str):
    cfg, options = one_video
    complete_all(cfg, options)
    assert not plan_batch(cfg, MODEL).tasks
    (Path(cfg.inference.videos) / "a.mp4").touch()  # so that it has to be done again
    (task,) = plan_batch(cfg, MODEL).tasks

    def failing(local: Path, uri: str, s3_endpoint=None) -> None:
        if uri.endswith(lost):
            raise StorageError(f"{uri}: connection reset")
        publish(local, uri, s3_endpoint)

    monkeypatch.setattr(module, "publish", failing)
    outcome = complete_video(task, Engine(), options)
    assert (outcome.status, outcome.reason) == ("failed", "storage")
    assert "connection reset" in outcome.message
    assert not exists(task.record), "the old record vouches for an output that may be new"
    assert len(plan_batch(cfg, MODEL).tasks) == 1
    # What stands under the final name is whole, be it old or new.
    assert sum(len(chunk) for chunk in iter_frames(task.output)) == 12

    monkeypatch.undo()
    assert complete_video(task, Engine(), options).status == "done"
    assert not plan_batch(cfg, MODEL).tasks


def test_truncated_video_is_completed_as_far_as_it_goes_and_says_so(tmp_path: Path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (24, 64, 64, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "whole.mp4", noise, 24)
    content = whole.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    cfg, options = batch_of(tmp_path)
    (outcome,) = complete_all(cfg, options).values()
    assert (outcome.status, outcome.reason) == ("done", "truncated")
    assert "of 24 declared frames" in outcome.message
    assert 0 < probe(outcome.output).frames == outcome.frames < 24


def test_a_video_too_long_for_memory_is_refused(one_video, monkeypatch):
    cfg, options = one_video
    monkeypatch.setattr(module, "MASK_BYTES", 1000)
    (outcome,) = complete_all(cfg, options).values()
    assert (outcome.status, outcome.reason) == ("failed", "too-long")
    assert "12 frames of 48x32" in outcome.message


def test_out_of_memory_is_told_apart(one_video):
    cfg, options = one_video

    class Exhausted:
        def inpaint(self, frames, masks):
            raise MemoryError

    (outcome,) = complete_all(cfg, options, Exhausted()).values()
    assert (outcome.status, outcome.reason) == ("failed", "out-of-memory")


def test_frame_folders_are_completed_too(tmp_path: Path):
    import cv2

    folder = tmp_path / "in/walk.v2"
    folder.mkdir(parents=True)
    for number, frame in enumerate(picture_clip(5)):
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame[..., ::-1])
    cfg, options = batch_of(tmp_path)
    outcomes = complete_all(cfg, options)
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
    for local, key in (
        ("a.mp4", "in/sub/a.mp4"),
        ("a.mp4", "in/b c.mp4"),
        ("bad.mp4", "in/bad.mp4"),
        ("mask.mp4", "masks/sub/a.mp4"),
    ):
        publish(tmp_path / local, f"{s3_bucket}/{key}", s3_server)
    inference = {"videos": f"{s3_bucket}/in", "output": f"{s3_bucket}/out"}
    data = {"videos": f"{s3_bucket}/in", "s3_endpoint": s3_server}
    cfg, options = batch_of(tmp_path, data=data, inference=inference)
    outcomes = complete_all(cfg, options)
    assert {name: o.status for name, o in outcomes.items()} == {
        "sub/a.mp4": "done", "b c.mp4": "done", "bad.mp4": "failed",
    }, [o.message for o in outcomes.values()]  # fmt: skip
    assert f"{s3_bucket}/in/bad.mp4" in outcomes["bad.mp4"].message
    with local_copy(f"{s3_bucket}/out/sub/a.mp4", s3_endpoint=s3_server) as path:
        assert len(read_frames(path)) == 5
    assert [task.name for task in plan_batch(cfg, MODEL).tasks] == ["bad.mp4"]

    masked = {**inference, "masks": f"{s3_bucket}/masks"}
    cfg, options = batch_of(tmp_path, data=data, inference=masked)
    plan = plan_batch(cfg, MODEL)
    assert {o.reason for o in plan.settled} == {"mask-missing"}
    (task,) = plan.tasks
    outcome = complete_video(task, Engine(), options)
    assert (outcome.name, outcome.reason) == ("sub/a.mp4", "mask-length")
    assert f"{s3_bucket}/masks/sub/a.mp4" in outcome.message
