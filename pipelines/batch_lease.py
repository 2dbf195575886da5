"""One driver per output: a lease in the output's `_work` folder, renewed while its driver lives.

Of two drivers each would do the other's work again; and where their inputs, model or settings
differ, so does what they publish under the same names (whole, and recorded only by whose it is).
So each looks at the lease again before it has a video published, and ends if it was lost; while the
storage does not answer, it waits. What it had begun may outlive it in other processes, so these
look too, last of all before an output gets its name (`check_held`). A lease whose driver is seen to
be dead, or that nobody renews, is taken over; no clocks are compared. (Object stores have no locks:
of two drivers that start in the same moment the one that wrote last has it, and the other finds
that out. In the moment between the last look and the naming another may still take it: a record is
only written for one's own bytes.)
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from pipelines.batch_masks import stamp_of
from pipelines.batch_names import WORK
from pipelines.retries import with_retries
from pipelines.storage import StorageError, delete, exists, join, read_bytes, write_bytes

log = logging.getLogger(__name__)

BEAT = 10.0  # seconds between two renewals
STALE = 60.0  # seconds without one, after which a driver is taken to be dead
PATIENCE = 3600.0  # seconds that a storage may be away, until the batch ends
SETTLE = 0.2  # seconds in which another driver's writing would be seen

_held: set[str] = set()  # tokens of this process


class LeaseError(ValueError):
    """Another driver works on this output; the message names it and the remedy."""


class Lease:
    """Context manager; entering it takes the lease. Raises LeaseError or StorageError.

    Args:
        output: URI of the batch's output.
        say: told that another driver's sign of life is waited for.
    """

    def __init__(
        self,
        output: str,
        s3_endpoint: str | None = None,
        say: Callable[[str], None] = lambda line: None,
        beat: float = BEAT,
        stale: float = STALE,
        patience: float = PATIENCE,
    ) -> None:
        self._output, self._endpoint, self._say = output, s3_endpoint, say
        self._folder, self._file = join(output, WORK, "lease"), _file_of(output)
        self._beat, self._stale, self._patience = beat, stale, patience
        self._own = {"token": uuid.uuid4().hex, "beat": 0, **this_process()}
        self._over, self._lost = threading.Event(), ""
        self._one_at_a_time = threading.Lock()
        self._renewed = time.monotonic()
        self.since = 0
        """When it was taken: ns, by the storage's clock."""

    @property
    def token(self) -> str:
        """What tells this lease from all others."""
        return self._own["token"]

    def check(self, look: bool = False) -> None:
        """Raise LeaseError if another driver has taken over meanwhile.

        Where the lease could not be renewed for as long as others wait, another may have: then this
        waits until the storage answers, and ends the batch only after `patience`. With `look`, what
        is stored is looked at now.
        """
        if look and not self._lost:
            self._try(self._look, "looked at")
        while not self._lost and self._silent() >= self._stale and not self._try(self._hold):
            if self._silent() >= self._patience:
                self._lost = (
                    f"{self._output}: the lease could not be renewed for {self._silent():.0f} s; "
                    "this batch ends: see to the storage and run it again"
                )
            time.sleep(min(self._beat, 1.0))
        if self._lost:
            raise LeaseError(self._lost)

    def __enter__(self) -> Lease:
        found = self._read()
        if found is not None and not is_dead(found):
            self._wait_for_sign(found)
        self._write()
        time.sleep(SETTLE)
        self._look()
        if self._lost:
            raise LeaseError(self._lost)
        self.since = with_retries(lambda: stamp_of(self._file, self._endpoint)).get("modified", 0)
        _held.add(self._own["token"])
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        _held.discard(self._own["token"])
        try:
            if self._is_own(self._read()):
                with_retries(lambda: delete(self._folder, self._endpoint))
        except (StorageError, OSError) as error:
            log.warning("the lease could not be given back: %s", error)

    def _wait_for_sign(self, found: dict[str, Any]) -> None:
        """Return when its driver has given none for long enough; else raise LeaseError."""
        if not is_alive(found):
            self._say(f"{self._output}: held by {_who(found)}; {self._stale:g} s for a sign of it")
            deadline = time.monotonic() + self._stale
            while time.monotonic() < deadline:
                time.sleep(min(1.0, self._stale / 10))
                now = self._read()
                if now is None:
                    return
                if now != found:
                    found = now
                    break
            else:
                return
        raise LeaseError(
            f"{self._output}: {_who(found)} works on it; "
            "wait for it, end it, or give another output"
        )

    def _renew(self) -> None:
        while not self._over.wait(self._beat) and not self._lost:
            self._try(self._hold)

    def _hold(self) -> None:
        """Renew it, unless another has it."""
        with self._one_at_a_time:
            self._look()
            if not self._lost:
                self._own["beat"] += 1
                self._write()

    def _try(self, call: Callable[[], None], word: str = "renewed") -> bool:
        try:
            call()
        except (StorageError, OSError) as error:
            log.warning("the lease could not be %s: %s", word, error)
            return False
        return True

    def _silent(self) -> float:
        return time.monotonic() - self._renewed

    def _look(self) -> None:
        found = self._read()
        if found is not None and not self._is_own(found):
            self._lost = f"{self._output}: {_who(found)} has taken over; this batch ends"

    def _is_own(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("token") == self._own["token"]

    def _read(self) -> dict[str, Any] | None:
        return with_retries(lambda: _read(self._file, self._endpoint))

    def _write(self) -> None:
        content, now = json.dumps(self._own).encode(), time.monotonic()
        with_retries(lambda: write_bytes(content, self._file, self._endpoint, self._folder))
        self._renewed = now


def check_held(output: str, token: str, s3_endpoint: str | None = None) -> None:
    """Raise LeaseError if an output's lease is another's than the driver's who has this token.

    Where there is none, its driver has given it back, or is about to write it again: a transient
    StorageError. Raises StorageError.
    """
    found = _read(_file_of(output), s3_endpoint)
    if found is None:
        raise StorageError(f"{output}: no batch works on it any more", transient=True)
    if found.get("token") != token:
        raise LeaseError(f"{output}: {_who(found)} has taken over; nothing more is published")


def _file_of(output: str) -> str:
    return join(output, WORK, "lease", "driver.json")


def _read(uri: str, endpoint: str | None) -> dict[str, Any] | None:
    """A lease; None where there is none, or one that is damaged, and so nobody's."""
    if not exists(uri, endpoint):
        return None
    try:
        content = read_bytes(uri, endpoint)
    except StorageError:
        if exists(uri, endpoint):
            raise
        return None
    with suppress(ValueError):
        found = json.loads(content)
        return found if isinstance(found, dict) else None
    return None


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on whatever machine."""
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
            "started": started}  # fmt: skip


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether a lease's driver is seen to have ended: only on its own machine."""
    return bool(_machine()) and holder.get("machine") == _machine() and not is_alive(holder)


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether a lease's driver is seen to live: only on its own machine."""
    if not _machine() or holder.get("machine") != _machine():
        return False
    if holder.get("pid") == os.getpid() and holder.get("token") not in _held:
        return False  # of an earlier batch of this process, which could not give it back
    with suppress(psutil.Error, TypeError, ValueError):
        process = psutil.Process(holder["pid"])
        same = abs(process.create_time() - holder["started"]) < 5  # (clocks are set now and then)
        return same and process.status() != psutil.STATUS_ZOMBIE
    return False


def _machine() -> str:
    """This boot of this machine and its numbering of processes; "" where that cannot be told."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _who(holder: dict[str, Any]) -> str:
    return f"another batch (process {holder.get('pid')} on {holder.get('host')})"
