"""A process that its file ends says so; one that is killed from outside does not."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import uuid

import pytest

from pipelines.last_words import LastWords, found, note

START = """
import os, signal, sys
from pipelines.last_words import LastWords
with LastWords(sys.argv[1]) as words:
"""


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        ("os.abort()", "Fatal Python error: Aborted"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Fatal Python error: Segmentation fault"),
        ("words.hung()", "hung"),
        ("words.doubt(SystemError('bad call flags'))", "SystemError: bad call flags"),
        ("os.kill(os.getpid(), signal.SIGKILL)", ""),
        ("os._exit(1)", ""),
        ("pass", ""),
    ],
)
def test_who_ended_it_is_known_afterwards(ending: str, left: str):
    key = uuid.uuid4().hex
    command = [sys.executable, "-c", f"{START}    {ending}", key]
    ended = subprocess.run(command, check=False, capture_output=True).returncode
    assert (ended == 0) == (ending == "pass")
    assert found(key) == left
    assert not found(key) and not note(key).exists()


def test_what_reported_crashes_before_does_so_afterwards():
    before = faulthandler.is_enabled()
    with LastWords(uuid.uuid4().hex):
        assert faulthandler.is_enabled()
    assert faulthandler.is_enabled() == before
