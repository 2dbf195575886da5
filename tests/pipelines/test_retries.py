"""Only what can pass is tried again, with longer and longer waits, and not for ever."""

from __future__ import annotations

import pytest

from pipelines.retries import with_retries
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
