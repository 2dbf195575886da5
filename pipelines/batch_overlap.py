"""Whether a batch would write over what it reads, however its locations are spelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from pipelines.batch_masks import BatchError
from pipelines.batch_names import LEDGER, QUARANTINE, REPORT, SUMMARY, WORK
from pipelines.batch_record import VideoTask, record_of
from pipelines.storage import join
from pipelines.storage_names import location


def check_overlap(tasks: Iterable[VideoTask], manifest: str | None = None) -> None:
    """Raise BatchError where what a batch writes or removes would touch what it reads.

    Inputs are the tasks' videos and masks, which may be folders of pictures, and the manifest.
    """
    tasks = list(tasks)
    read = {location(uri): uri for task in tasks for uri in (task.video, task.mask) if uri}
    if manifest is not None:
        read[location(manifest)] = manifest
    written = {location(uri): uri for task in tasks for uri in _written(task)}
    pairs = [(output, source) for source, output in _touching(read, written)]
    for output, source in [*pairs, *_touching(written, read)]:
        raise BatchError(
            f"inference.output: {output} would be written or removed, and the input {source} is "
            "there; give another folder, or another output in the manifest"
        )


def _written(task: VideoTask) -> Iterator[str]:
    """Files and folders that belong to the batch alone."""
    for uri in (task.output, task.review, task.outdated):
        yield from (uri, record_of(uri))
    yield task.sheet
    yield join(task.root, QUARANTINE, f"{task.place}.json")
    yield from (join(task.root, name) for name in (WORK, SUMMARY, REPORT, LEDGER))


def _touching(places: Mapping[str, str], others: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of URIs, the first of which is at or below the second."""
    for place, uri in places.items():
        above = [others[path] for path in (place, *_parents(place)) if path in others]
        if above:
            yield uri, above[0]


def _parents(place: str) -> list[str]:
    """Folders above, nearest first."""
    scheme, separator, rest = place.rpartition("://")
    return [f"{scheme}{separator}{parent}" for parent in PurePosixPath(rest).parents]
