"""Where the outputs of a batch go: names that earlier runs gave stay, whatever comes later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pipelines import storage
from pipelines.batch_inputs import in_threads
from pipelines.batch_names import REVIEW, assign_names, contested
from pipelines.batch_record import parse_record, record_of
from pipelines.retries import with_retries
from pipelines.storage import StorageError, join


def places_of(
    wanted: Mapping[str, str], files: Collection[str], output: str, endpoint: str | None
) -> dict[str, str]:
    """Video's name to its output's, relative to the output; see `assign_names`.

    Args:
        files: everything below the output.

    Raises StorageError where storage is away, so that it is not known whose a name is.
    """
    recorded = recorded_places(files)
    asked = sorted(contested(wanted, recorded))

    def owner(place: str) -> str | None:
        places = [it for it in (place, f"{REVIEW}/{place}") if record_of(it) in files]
        record = join(output, record_of(places[0]))
        try:
            content = with_retries(lambda: storage.read_bytes(record, endpoint))
        except StorageError as error:
            if error.transient:
                raise
            return None  # (whatever it is, it is kept before its name is taken)
        outcome = parse_record(content).get("outcome")
        return outcome and outcome.name

    owners = dict(zip(asked, in_threads(owner, asked), strict=True))
    return assign_names(wanted, recorded, {place: name for place, name in owners.items() if name})


def recorded_places(names: Iterable[str]) -> set[str]:
    """Of an output's files: places with a record, under their names or held back for review."""
    end = len(record_of(""))
    records = {name[:-end] for name in names if name.endswith(record_of(""))}
    return {place.removeprefix(f"{REVIEW}/") for place in records}
