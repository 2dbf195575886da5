"""What a process that decodes a file leaves behind when it dies of it.

Anybody may kill a process: the kernel that is short of memory, a node that is taken away. The file
is to blame only for a decoder that crashed, that hung, or that left the process broken, and these
write a note on the node's disk first.
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pipelines.watchdog import end_process

logger = logging.getLogger(__name__)


def note(key: str) -> Path:
    """Where on a node the last words are that are called so."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"cssta-last-words-{digest}"


def found(key: str) -> str:
    """The first line of what a process of this node left, or ""; it is gone then."""
    path = note(key)
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""
    finally:
        path.unlink(missing_ok=True)


class LastWords:
    """Context manager around what may end this process; `found` tells the next one if it did."""

    def __init__(self, key: str) -> None:
        self._path = note(key)

    def __enter__(self) -> LastWords:
        self._before = faulthandler.is_enabled()
        self._file = open(self._path, "w")
        faulthandler.enable(self._file, all_threads=False)  # writes from the signal's handler
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.disable()
        if self._before:
            with suppress(ValueError, OSError, AttributeError, RuntimeError):  # no such stderr
                faulthandler.enable(sys.__stderr__, all_threads=False)
        self._file.close()
        self._path.unlink(missing_ok=True)

    def hung(self) -> None:
        """End this process, whose decoder makes no progress."""
        self._leave("hung")

    def doubt(self, error: Exception) -> None:
        """Within `except`: end this process. Either an earlier file's decoder has overwritten its
        memory, or this one's may have."""
        words = f"{type(error).__name__}: {error}"
        logger.warning("%s; the process may be broken and ends", words, exc_info=True)
        self._leave(words)

    def _leave(self, words: str) -> None:
        self._file.write(words)
        self._file.flush()
        end_process()
