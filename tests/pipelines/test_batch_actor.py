"""What an actor makes of an error: a result, or a fresh process where the old one may be broken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from cssta.video import write_video
from pipelines import batch_actor as module
from pipelines.actors import Keeper
from pipelines.batch_actor import Completer
from pipelines.batch_plan import plan_batch
from pipelines.batch_units import Part, PartResult, parts_of, to_row
from pipelines.watchdog import Watchdog
from tests.pipelines.fake_engines import GreyEngine
from tests.pipelines.one_process import MODEL, config, picture_clip, settings_of


class Ended(BaseException):
    """The process has."""


class Raises(GreyEngine):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def inpaint(self, frames, masks, progress=None):
        raise self.error


class Handle:
    """Of an actor in this process."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str):
        method = getattr(self._actor, name)
        return type("Method", (), {"remote": staticmethod(method)})


class Lost(Keeper):
    """As it answers by `ask` once it is lost."""

    def start(self, name: str) -> int:
        return 0


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes an actor, as after a start, from an engine and a keeper; and a part to complete."""
    write_video(tmp_path / "in/a.mp4", picture_clip(4), 24)
    cfg = config(tmp_path)
    settings = settings_of(cfg)
    (task,) = plan_batch(cfg, MODEL).tasks
    (part,) = parts_of(task, settings, Watchdog(600))

    def end(code: int) -> None:
        raise Ended

    def make(error: Exception | None, keeper: Keeper) -> tuple[Completer, Part]:
        engine = GreyEngine() if error is None else Raises(error)
        files = {"model.safetensors": b""}
        handle = Handle(keeper)
        return Completer(handle, files, settings, lambda *_: engine, threads=1), part

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    monkeypatch.setattr(os, "_exit", end)
    return make


CUDA = RuntimeError("CUDA error: an illegal memory access was encountered")


def test_what_may_have_broken_the_process_is_tried_once_more_in_a_fresh_one(actor):
    keeper = Keeper()
    for _ in range(2):
        completer, part = actor(CUDA, keeper)
        with pytest.raises(Ended):
            completer._result(part)
    completer, part = actor(CUDA, keeper)
    told = completer._result(part)
    assert told == PartResult("a.mp4", reason="unexpected", message=f"RuntimeError: {CUDA}")


def test_who_only_suffered_from_anothers_fault_is_completed_then(actor):
    keeper = Keeper()
    completer, part = actor(CUDA, keeper)
    with pytest.raises(Ended):
        completer._result(part)
    completer, part = actor(None, keeper)
    assert completer._result(part).frames == 4
    assert keeper.start(part.key) == 1


def test_a_part_of_a_published_video_is_not_made_again(actor):
    """Ray repeats what it had a result of already, where a node is lost before the call ended."""
    keeper = Keeper()
    keeper.give_up("a.mp4")
    completer, part = actor(None, keeper)
    assert completer._result(part) == PartResult("a.mp4", reason="given-up")
    assert not list(Path(part.task.staging).glob("segment-*"))
    assert keeper.start(part.key) == 1


def test_what_is_staged_is_told_even_if_no_more_is_to_be_done(actor):
    keeper = Keeper()
    for _ in range(2):
        completer, part = actor(None, keeper)
        told = completer._result(part)
        assert (told.reason, told.frames) == ("", 4)
        keeper.give_up("a.mp4")
    assert told.resumed


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "out-of-memory"), (ValueError("x"), "unexpected")]
)
def test_other_errors_leave_the_process_alone(actor, error: Exception, reason: str):
    completer, part = actor(error, Keeper())
    assert completer._result(part).reason == reason


def test_without_a_keeper_nothing_is_tried_without_end(actor):
    completer, part = actor(CUDA, Lost())
    assert completer._result(part).reason == "unexpected"


def test_what_a_part_leaves_free_goes_back_before_the_next(actor, monkeypatch):
    """A process that completes segments for hours does not grow by what each leaves."""
    completer, part = actor(None, Keeper())
    done = []
    monkeypatch.setattr(module, "complete_part", lambda part, *_: done.append(part.number))
    monkeypatch.setattr(module, "trim_heap", lambda: done.append("trimmed"))
    parts = [replace(part, number=number, count=3) for number in range(3)]
    completer(to_row(parts, ()))
    assert done == [0, "trimmed", 1, "trimmed", 2, "trimmed"]
