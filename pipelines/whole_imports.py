"""No process goes on with a module whose import was cut off.

Ray cancels a task by an interrupt in its process, wherever that is, and gives the process another
task. Ray Data does so whenever a stream ends early. Native modules do not survive an import that
stops half-way: torch crashes at the next one, or lacks parts, or finds fault with every good file.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType


def keep_imports_whole() -> None:
    """From now on, in a Ray worker's main thread, an interrupt during an import ends the process.

    Its task was cancelled, so nothing is lost; Ray starts another process. Interrupts at any other
    moment do what they did before, and other processes are left as they are.
    """
    ray_worker = sys.modules.get("ray._private.worker")
    if ray_worker is None or ray_worker.global_worker.mode != ray_worker.WORKER_MODE:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or getattr(before, "keeps_imports_whole", False):
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        if is_importing(frame):
            os._exit(1)
        before(number, frame)

    interrupted.keeps_imports_whole = True
    signal.signal(signal.SIGINT, interrupted)


def is_importing(frame: FrameType | None) -> bool:
    """Whether what runs in this frame is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
