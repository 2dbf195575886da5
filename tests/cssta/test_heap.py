from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from cssta import heap
from cssta.references import ReferencePlan
from tests.cssta.test_engine import clip, inpainter

MIB = 2**20


def anonymous() -> int:
    """Bytes of this process that are in RAM and no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 2**10 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


on_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="malloc_trim is glibc's",
)


@on_glibc
def test_gaps_go_back_to_the_system():
    # Every other block is freed: none of the gaps is at the heap's end.
    blocks = [ctypes.create_string_buffer(100_000) for _ in range(2000)]
    full = anonymous()
    del blocks[::2]
    before = anonymous()
    heap.trim_heap()
    assert before - anonymous() > 60 * MIB, (full, before)
    assert len(blocks) == 1000


def test_where_it_cannot_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_trim", None)
    heap.trim_heap()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap._find_trim() is None


@on_glibc
def test_a_long_clip_takes_no_more_memory_than_a_short_one():
    frames, _ = clip(2, height=256, width=384)
    shapes = np.random.default_rng(0).integers(4, 40, (160, 2))
    made = inpainter(plan=ReferencePlan(far=3, near=(2,), ahead=4))

    def pairs():
        for number, (height, width) in enumerate(shapes):
            mask = np.zeros((256, 384), bool)
            mask[:height, :width] = number % 8 == 0
            yield frames[number % 2].copy(), mask

    sizes = []
    for number, _ in enumerate(made.stream(pairs(), region=(0, 64, 0, 64))):
        if number % 20 == 0:
            heap.trim_heap()
            sizes.append(anonymous())
    # One array per frame would be 300 KB each.
    assert max(sizes[4:]) - sizes[3] < 8 * MIB, [size // MIB for size in sizes]
