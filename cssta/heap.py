"""Giving freed memory back to the system.

Scratch buffers of ever other sizes (moving holes) leave glibc's heap full of gaps that fit nothing:
a process grows although it holds on to nothing.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None


_trim = _find_trim()


def trim_heap() -> None:
    """Give back what the heap has free, gaps too; does nothing where the C library cannot."""
    if _trim is not None:
        _trim(0)
