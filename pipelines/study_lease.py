"""One driver per study: a lease among the study's attributes, renewed while its driver lives.

It is in the study's database, where every driver of the study looks, wherever it keeps its results.
Of two drivers the later would take the earlier's running trials for lost ones. One that is seen to
be dead, or that nobody renews, is taken over; no clocks are compared.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import optuna

from pipelines.batch_lease import is_alive, is_dead, this_process
from pipelines.study import TuneError

log = logging.getLogger(__name__)

DRIVER = "driver"  # the attribute
BEAT = 10.0  # seconds between two renewals
STALE = 60.0  # seconds without one, after which a driver is taken to be dead
SETTLE = 0.2  # seconds in which another driver's writing would be seen

_held: set[str] = set()  # tokens of this process


class StudyLease:
    """Context manager; entering it takes the lease. Raises TuneError if another driver has it.

    `say` is told that another driver's sign of life is waited for.
    """

    def __init__(
        self,
        study: optuna.Study,
        say: Callable[[str], None] = lambda line: None,
        beat: float = BEAT,
        stale: float = STALE,
    ) -> None:
        self._study, self._say, self._beat, self._stale = study, say, beat, stale
        self._own = {"token": uuid.uuid4().hex, "beat": 0, **this_process()}
        self._over = threading.Event()

    def check(self) -> None:
        """Raise TuneError if another driver has taken over, as after a long sleep of this one."""
        found = self._read()
        if found.get("token") != self._own["token"]:
            raise TuneError(
                f"study {self._study.study_name!r}: {_who(found)} has taken over; this one ends"
            )

    def __enter__(self) -> StudyLease:
        found = self._read()
        if found and not self._is_dead(found):
            self._wait_for_sign(found)
        self._write(self._own)
        time.sleep(SETTLE)
        self.check()
        _held.add(self._own["token"])
        self._thread = threading.Thread(target=self._renew, daemon=True, name="study-lease")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        _held.discard(self._own["token"])
        try:
            if self._read().get("token") == self._own["token"]:
                self._write({})
        except Exception as error:  # (what ended the search is what is to be told)
            log.warning("the study's lease could not be given back: %s", error)

    def _wait_for_sign(self, found: dict[str, Any]) -> None:
        """Return when its driver has given none for long enough; else raise TuneError."""
        name = self._study.study_name
        if not self._is_alive(found):
            self._say(f"study {name}: held by {_who(found)}; {self._stale:g} s for a sign of it")
            deadline = time.monotonic() + self._stale
            while (now := self._read()) == found:
                if time.monotonic() >= deadline:
                    return
                time.sleep(min(1.0, self._stale / 10))
            if not now:
                return
            found = now
        raise TuneError(
            f"study {name!r}: {_who(found)} works on it; "
            "wait for it, end it, or name another tune.study"
        )

    def _renew(self) -> None:
        while not self._over.wait(self._beat):
            try:
                if self._read().get("token") != self._own["token"]:
                    return
                self._own["beat"] += 1
                self._write(self._own)
            except Exception as error:  # whatever the database's driver raises; it may come back
                log.warning("the study's lease could not be renewed: %s", error)

    def _read(self) -> dict[str, Any]:
        found = self._study.user_attrs.get(DRIVER)
        return found if isinstance(found, dict) else {}

    def _write(self, holder: dict[str, Any]) -> None:
        self._study.set_user_attr(DRIVER, holder)

    @staticmethod
    def _is_alive(found: dict[str, Any]) -> bool:
        return found.get("token") in _held or is_alive(found)

    @staticmethod
    def _is_dead(found: dict[str, Any]) -> bool:
        return found.get("token") not in _held and is_dead(found)


def _who(holder: dict[str, Any]) -> str:
    return f"another search (process {holder.get('pid')} on {holder.get('host')})"
