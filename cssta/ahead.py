"""What is made ahead of its user, by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], length: int) -> Iterator[Item]:
    """The items, up to `length` of them made ahead in a thread of their own.

    What is raised there is raised here in its turn. Closing ends the thread and closes `items`.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=length)
    stopped = threading.Event()

    def offer(item: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not offer((item, None)):
                    break
            else:
                offer(_END)
        except BaseException as error:
            offer((None, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, daemon=True, name="ahead")
    thread.start()
    try:
        while (entry := waiting.get()) is not _END:
            item, error = entry
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
