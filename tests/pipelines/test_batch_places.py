"""Whose an output's name is: asked only where it decides something, and not guessed."""

from __future__ import annotations

import json

import pytest

from pipelines import storage
from pipelines.batch_places import places_of
from pipelines.batch_record import VideoOutcome
from pipelines.storage import StorageError

OUT = "/out"
WANTED = {name: name for name in ("a.mp4", "walk", "walk.mp4", "held", "held.mp4")}
OUTPUTS = ["a.mp4", "walk.mp4", "_review/held.mp4"]
FILES = [file for name in OUTPUTS for file in (name, f"{name}.json")]


def record(name: str) -> bytes:
    return json.dumps({"outcome": vars(VideoOutcome(name, "", "", "done"))}).encode()


def test_records_are_read_of_names_that_several_want(monkeypatch):
    asked = []

    def read(uri: str, endpoint: str | None) -> bytes:
        asked.append(uri)
        return record("walk" if "walk" in uri else "held")

    monkeypatch.setattr(storage, "read_bytes", read)
    places = places_of(WANTED, FILES, OUT, None)
    assert sorted(asked) == ["/out/_review/held.mp4.json", "/out/walk.mp4.json"]
    assert (places["a.mp4"], places["walk"], places["held"]) == ("a.mp4", "walk.mp4", "held.mp4")
    assert len(set(places.values())) == len(WANTED)


@pytest.mark.parametrize("transient", [True, False])
def test_a_record_that_cannot_be_had(monkeypatch, transient: bool):
    """While storage is away no name is given; one that is refused ever after is no one's."""
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.001)

    def refuse(uri: str, endpoint: str | None) -> bytes:
        raise StorageError(f"{uri}: no answer", transient=transient)

    monkeypatch.setattr(storage, "read_bytes", refuse)
    if transient:
        with pytest.raises(StorageError, match="no answer"):
            places_of(WANTED, FILES, OUT, None)
    else:
        assert places_of(WANTED, FILES, OUT, None)["walk.mp4"] == "walk.mp4"
