"""Signs of life while videos are opened, sought in and read: a watchdog ends whom it misses."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import ray

from cssta.video import container, scan
from pipelines.actors import Keeper
from pipelines.assemble_video import assemble_video
from pipelines.batch import assemble_task
from pipelines.batch_actor import Completer
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import VideoTask
from pipelines.batch_source import opened
from pipelines.batch_units import parts_of
from pipelines.watchdog import Watchdog
from tests.cssta.media import make_video
from tests.pipelines.fake_engines import GreyEngine
from tests.pipelines.one_process import MODEL, complete_parts, config, picture_clip, settings_of
from tests.pipelines.test_batch_actor import Handle

FRAMES = 40
MOST = 10  # packets: until the first frames of a video and its mask are there


class Silence:
    """Stands for Watchdog; counts what is decoded between two signs of life."""

    packets, longest, decoded = 0, 0, 0

    def __init__(self, *_: object) -> None:
        Silence.packets = 0

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def feed(self, *_: object) -> None:
        Silence.packets = 0

    @classmethod
    def decode(cls) -> None:
        cls.decoded += 1
        cls.packets += 1
        cls.longest = max(cls.longest, cls.packets)


def test_reading_all_packets_of_a_large_file_is_told(task, monkeypatch):
    """Its times, where the container does not tell its length, and its other streams' content."""
    video, settings = task
    complete_parts(video, settings)
    read, plain = [], av.container.InputContainer.demux

    class Container:
        def __init__(self, container) -> None:
            self._container = container

        def __getattr__(self, name: str):
            return getattr(self._container, name)

        def demux(self, *streams):
            for packet in plain(self._container, *streams):
                read.append(len(told))
                yield packet

    @contextmanager
    def followed(path: Path):
        with container.open_video(path) as (opened, stream):
            yield Container(opened), stream

    told: list[None] = []
    for module in ("assemble", "verify"):
        monkeypatch.setattr(sys.modules[f"cssta.video.{module}"], "open_video", followed)
    assert assemble_video(video, settings, lambda: told.append(None)).status == "done"
    assert len(read) > 4 * FRAMES
    assert max(Counter(read).values()) <= MOST


def before_decoding(call: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`call` is called whenever a decoder of a video gets a packet."""
    plain = container._decoder

    class Decoder:
        def __init__(self, stream) -> None:
            self._decoder = plain(stream)

        def decode(self, packet):
            call()
            return self._decoder.decode(packet)

    monkeypatch.setattr(container, "_decoder", Decoder)


@pytest.fixture
def task(tmp_path: Path) -> tuple[VideoTask, object]:
    """A transport stream with a mask of that kind: nothing but decoding tells what is in them."""
    frames = np.tile(picture_clip(FRAMES), (1, 2, 2, 1))
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
    make_video(tmp_path / "in/a.ts", frames, options={"g": "10"}, codec="mpeg2video")
    hole = np.zeros_like(frames)
    hole[:, 16:40, 16:48] = 255
    make_video(tmp_path / "masks/a.ts", hole, options={"g": "10"}, codec="mpeg2video")
    line = {"video": "a.ts", "mask": str(tmp_path / "masks/a.ts"), "output": "a.mkv"}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    inference = {"manifest": str(tmp_path / "list.jsonl"), "segment_frames": 10}
    cfg = config(tmp_path, inference=inference)
    (found,) = plan_batch(cfg, MODEL).tasks
    return found, settings_of(cfg)


def test_a_long_transport_stream_is_never_decoded_in_silence(task, monkeypatch):
    video, settings = task
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    for module in ("batch_actor", "batch"):
        monkeypatch.setattr(f"pipelines.{module}.Watchdog", Silence)
    before_decoding(Silence.decode, monkeypatch)
    silences, decoded = {}, {}

    def end(stage: str) -> None:
        silences[stage], decoded[stage] = Silence.longest, Silence.decoded
        Silence.longest = Silence.decoded = 0

    parts = parts_of(video, settings, Silence())
    assert len(parts) == FRAMES / 10
    end("survey")
    files = {"model.safetensors": b""}
    # (From a process of its own on: nothing is remembered, and frames cannot be sought.)
    scan._remembered.clear()
    actor = Completer(Handle(Keeper()), files, settings, lambda *_: GreyEngine(), threads=1)
    for part in reversed(parts):
        assert actor._result(part).reason == ""
    end("completion")
    scan._remembered.clear()
    outcome = assemble_task(video, settings)
    assert outcome.status == "done", outcome.message
    end("assembly")
    assert min(decoded.values()) >= 2 * FRAMES
    assert max(silences.values()) <= MOST, silences


def test_a_decoder_that_hangs_is_noticed(task, monkeypatch):
    video, settings = task
    ended, packets = threading.Event(), []

    def hang() -> None:
        packets.append(None)
        if len(packets) > FRAMES // 2:
            assert ended.wait(60), "nobody ends it"
            raise TimeoutError

    before_decoding(hang, monkeypatch)
    scan._remembered.clear()
    with (
        Watchdog(0.3, ended.set) as watchdog,
        pytest.raises(TimeoutError),
        opened(video, settings, watchdog.feed),
    ):
        pass
