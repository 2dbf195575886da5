"""How many frames wait between decoder, engine and encoder."""

from __future__ import annotations

from pipelines.read_ahead import queue_length


def test_large_frames_wait_in_smaller_numbers():
    assert queue_length(240, 432) == 16
    assert queue_length(4320, 7680) == 2
