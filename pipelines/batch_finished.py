"""What is finished: an output with a record that vouches for it, in the place where it belongs.

An output belongs under its name, or in `_review` where its figures break a limit. Limits are no
part of what an output is made from: when they change, what is finished is judged again by the
figures in its record, and moved; where a limit needs a figure that was not measured then and is
measured now, the video is done again. What was made from an earlier input or model and now has a
successor in `_review` is moved to `_outdated`. Where the new attempt fails, the earlier output
stays under its name: its record says what it was made from, `_quarantine` why there is none newer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cssta.quality import judge
from pipelines import storage
from pipelines.batch_masks import Stamp, stamp_of
from pipelines.batch_record import (
    FINISHED,
    ModelIdentity,
    Published,
    VideoOutcome,
    VideoTask,
    parse_record,
    record_of,
    write_record,
)
from pipelines.retries import patiently
from pipelines.storage import StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A finished output: where it is, its record, and its outcome as judged now.

    `outcome.output` is where it belongs. `tidy`: something lies in the other place.
    """

    uri: str
    record: dict[str, Any]
    outcome: VideoOutcome
    tidy: bool = False

    @property
    def is_misplaced(self) -> bool:
        """Whether `put_in_place` has something to do."""
        return self.tidy or self.uri != self.outcome.output


def find_finished(
    task: VideoTask,
    files: Mapping[str, Stamp],
    limits: Mapping[str, float],
    endpoint: str | None,
    verify: bool = False,
) -> Finished | None:
    """The finished output of exactly this task.

    A file whose size and time are those in its record is taken to be what was published; one with
    another time, and with `verify` every one, is read and held against its SHA-256.

    Args:
        files: stamps of what is stored, by URI.
        verify: do not trust times.

    Raises StorageError.
    """
    for uri in (task.output, task.review):
        record_uri = record_of(uri)
        if uri not in files or record_uri not in files:
            continue
        try:
            content = patiently(lambda uri=record_uri: storage.read_bytes(uri, endpoint))
        except StorageError as error:
            if error.transient:
                raise
            log.warning("%s: no record can be read: %s", task.name, error)
            continue  # it vouches for nothing
        record = parse_record(content)
        if not _vouches(record, task, uri, files[uri], endpoint, verify):
            continue
        lacking = [key for key in _wanted(task, limits) if key not in record["outcome"].quality]
        if lacking:
            log.warning("%s: made again: %s was not measured", task.name, ", ".join(lacking))
            continue
        other = task.review if uri == task.output else task.output
        outcome = judged(record["outcome"], task, limits)
        return Finished(uri, record, outcome, other in files or record_of(other) in files)
    return None


def stored(task: VideoTask, endpoint: str | None) -> dict[str, Stamp]:
    """Stamps, by URI, of what is in a task's two places. Raises StorageError."""
    uris = [uri for place in (task.output, task.review) for uri in (place, record_of(place))]
    found = {uri: patiently(lambda uri=uri: stamp_of(uri, endpoint)) for uri in uris}
    return {uri: stamp for uri, stamp in found.items() if stamp}


def judged(outcome: VideoOutcome, task: VideoTask, limits: Mapping[str, float]) -> VideoOutcome:
    """The outcome with the status and place that limits give it.

    A figure that was to be measured for a limit and is missing breaks it.
    """
    missing = [key for key in _wanted(task, limits) if key not in outcome.quality]
    broken = [*judge(outcome.quality, limits), *(f"{key} was not measured" for key in missing)]
    broken = "; ".join(broken)
    return replace(
        outcome,
        status="review" if broken else "done",
        output=task.review if broken else task.output,
        review=broken,
    )


def _wanted(task: VideoTask, limits: Mapping[str, float]) -> list[str]:
    """Figures that are measured and have a limit."""
    return [key for key in task.figures if key in limits]


def put_in_place(
    task: VideoTask, model: ModelIdentity, found: Finished, endpoint: str | None
) -> None:
    """Move a finished output to where it belongs; at every moment a record vouches for it.

    Raises StorageError.
    """
    outcome = found.outcome
    if found.uri != outcome.output:
        uri = outcome.output
        if uri == task.output:
            retire_foreign(task, found.record["sha256"], endpoint)
        # (An older record must not vouch for the new file.)
        patiently(lambda: storage.delete(record_of(uri), endpoint))
        patiently(lambda: storage.copy(found.uri, uri, endpoint, task.staging))
        size, sha256 = found.record["bytes"], found.record["sha256"]
        write(task, model, outcome, size, sha256, endpoint)
    clear_other_place(task, outcome.output, endpoint)


def write(
    task: VideoTask,
    model: ModelIdentity,
    outcome: VideoOutcome,
    size: int,
    sha256: str,
    endpoint: str | None,
) -> None:
    """Record an output of so many bytes that was put in its place.

    It is read again: another driver may have put its own there since. (What comes after this look
    has another time than the record says, and is read by whoever relies on it.)

    Raises StorageError.
    """
    uri = outcome.output
    stamp = patiently(lambda: stamp_of(uri, endpoint))
    if not stamp:
        raise StorageError(f"{uri}: is gone just after it was published")
    if stamp["bytes"] != size or patiently(lambda: storage.sha256(uri, endpoint)) != sha256:
        raise StorageError(
            f"{uri}: is not what was just published; end the other batch that writes there"
        )
    file = Published(size, stamp["modified"], sha256)
    content = write_record(task, model, outcome, file).encode()
    record = record_of(uri)
    patiently(lambda: storage.write_bytes(content, record, endpoint, task.staging))


def clear_other_place(task: VideoTask, current: str, endpoint: str | None) -> None:
    """Of a task's two places only `current`, which has its record, keeps something.

    What was held back is outdated and goes. What was published stays to be had in `_outdated`,
    unless it is the same work. Raises StorageError.
    """
    other = task.review if current == task.output else task.output
    if other == task.output:
        _retire(task, endpoint)
    for uri in (other, record_of(other)):
        patiently(lambda uri=uri: storage.delete(uri, endpoint))


def _retire(task: VideoTask, endpoint: str | None) -> None:
    """Keep what is published, if it was made from something else than the task."""
    if not patiently(lambda: storage.exists(task.output, endpoint)):
        return
    record = record_of(task.output)
    content = _read(record, endpoint)
    if content is not None and _fingerprint(content) == task.fingerprint:
        return
    _keep(task, endpoint)
    if content is not None:
        kept = record_of(task.outdated)
        patiently(lambda: storage.copy(record, kept, endpoint, task.staging))


def _keep(task: VideoTask, endpoint: str | None) -> None:
    """Copy what is under a task's name to `_outdated`, without a record."""
    # (That of what was there must not vouch for it.)
    patiently(lambda: storage.delete(record_of(task.outdated), endpoint))
    patiently(lambda: storage.copy(task.output, task.outdated, endpoint, task.staging))


def retire_foreign(task: VideoTask, sha256: str, endpoint: str | None) -> None:
    """Keep in `_outdated` what is under a task's name and no record of its own vouches for.

    (A record of another name is that of a video which is no more among the inputs.) But not what
    has this digest: what is to be published, as by a process that was killed before it could
    record it. Raises StorageError.
    """
    uri = task.output
    stamp = patiently(lambda: stamp_of(uri, endpoint))
    if not stamp or "pictures" in stamp:  # (a folder is in the way: publishing will say so)
        return
    record = parse_record(_read(record_of(uri), endpoint) or b"")
    if _is_as_recorded(record, uri, stamp, endpoint) and record["outcome"].name == task.name:
        return
    if patiently(lambda: storage.sha256(uri, endpoint)) == sha256:
        return
    log.warning("%s: %s is no output of it; kept as %s", task.name, uri, task.outdated)
    _keep(task, endpoint)


def _read(uri: str, endpoint: str | None) -> bytes | None:
    """A record that may not be there."""
    if not patiently(lambda: storage.exists(uri, endpoint)):
        return None
    return patiently(lambda: storage.read_bytes(uri, endpoint))


def _fingerprint(record: bytes) -> Any:
    try:
        return json.loads(record).get("fingerprint")
    except (ValueError, AttributeError):
        return None


def _vouches(
    record: dict[str, Any],
    task: VideoTask,
    uri: str,
    stamp: Stamp,
    endpoint: str | None,
    verify: bool,
) -> bool:
    if record.get("fingerprint") != task.fingerprint:
        return False
    if record["outcome"].status not in FINISHED:
        return False
    same = _is_as_recorded(record, uri, stamp, endpoint, verify)
    if not same:
        log.warning("%s: %s is not what was published; it is made again", task.name, uri)
    return same


def _is_as_recorded(
    record: dict[str, Any], uri: str, stamp: Stamp, endpoint: str | None, verify: bool = False
) -> bool:
    """Whether a file is what a record (possibly of other work) says was published."""
    if not record.get("sha256") or record.get("bytes") != stamp.get("bytes"):
        return False
    if record.get("modified") == stamp.get("modified") and not verify:
        return True
    return patiently(lambda: storage.sha256(uri, endpoint)) == record["sha256"]
