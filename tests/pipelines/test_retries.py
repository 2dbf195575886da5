"""Only what can pass is tried again, with longer and longer waits, and not for ever."""

from __future__ import annotations

import pytest

from pipelines.retries import PATIENT_ATTEMPTS, patiently, with_retries
from pipelines.storage import StorageError


def failing(times: int, transient: bool):
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise StorageError("s3://bucket: busy", transient=transient)
        return "done"

    return call


def test_passing_errors_are_waited_out():
    waits: list[float] = []
    assert with_retries(failing(3, True), sleep=waits.append) == "done"
    assert len(waits) == 3
    for found, wait in zip(waits, (0.5, 2, 8), strict=True):
        assert 0.5 * wait <= found <= 1.5 * wait


@pytest.mark.parametrize(("times", "transient", "tried"), [(9, True, 4), (1, False, 1)])
def test_what_does_not_pass_is_raised(times: int, transient: bool, tried: int):
    waits: list[float] = []
    with pytest.raises(StorageError, match="busy"):
        with_retries(failing(times, transient), sleep=waits.append)
    assert len(waits) == tried - 1


def test_an_outage_of_minutes_is_waited_out():
    waits: list[float] = []
    assert patiently(failing(PATIENT_ATTEMPTS - 1, True), sleep=waits.append) == "done"
    assert sum(waits) > 5 * 60 / 2, "the jitter may halve it, no more"
    assert max(waits) <= 1.5 * 120, "nobody waits long for what is back"
    assert 300 < sum((0.5, 2, 8, 32)) + 4 * 120 < 600  # without the jitter
    waits.clear()
    with pytest.raises(StorageError, match="busy"):
        patiently(failing(99, True), sleep=waits.append)
    assert len(waits) == PATIENT_ATTEMPTS - 1
    waits.clear()
    with pytest.raises(StorageError, match="busy"):
        patiently(failing(1, False), sleep=waits.append)
    assert not waits, "what cannot pass is told at once"
