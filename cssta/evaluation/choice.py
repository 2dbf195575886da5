"""What a command line asks for, as protocol, methods and named folders: one machine and cluster
alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from cssta.evaluation.methods import BASELINES, NAMES, check_names
from cssta.evaluation.protocols import MaskKind, Protocol, protocol
from cssta.evaluation.published import TABLES


class ChoiceError(ValueError):
    """Options that do not go together; the message names them and the remedy."""


def choose_protocol(
    name: str | None,
    table: int | None,
    holes: MaskKind | None,
    seed: int,
    given_masks: bool = False,
) -> Protocol:
    """By name, else a table's of the paper, else `paper`. Raises ValueError for an unknown name."""
    paper = TABLES[table] if table else None
    name = name or (paper.protocol if paper else "paper")
    kind = "folder" if given_masks else holes or (paper.holes if paper else None)
    return protocol(name, kind, seed)


def choose_methods(
    names: str | None, table: int | None, results: bool = False, model: bool = False
) -> list[str]:
    """Comma-separated `names`, else a table's, else all baselines, the networks and the method.

    Beside folders of `results` and no `model`, none by default. Raises ChoiceError.
    """
    if names is not None:
        found = [name.strip() for name in names.split(",") if name.strip()]
    elif table:
        found = list(TABLES[table].methods)
    else:
        found = [] if results and not model else [*BASELINES, "network", "cssta"]
    try:
        check_names(found)
    except ValueError as error:
        raise ChoiceError(str(error)) from error
    if not found and not results:
        raise ChoiceError(f"nothing to score; choose methods from {', '.join(NAMES)}")
    check_distinct(found, remedy="name each method once")
    return found


def check_distinct(names: Sequence[str], remedy: str = "use NAME=FOLDER") -> None:
    """Raise ChoiceError for a name that comes twice, upper and lower case being alike."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise ChoiceError(f"{name!r} is called twice; {remedy}")
        seen.add(name.lower())


def check_folders(folders: Sequence[tuple[str, str]]) -> None:
    """Raise ChoiceError unless each has a name of its own, which is no method's."""
    for name, folder in folders:
        if not name or name.lower() in NAMES:
            what = f"{name!r} is a method's name" if name else "has no name of its own"
            raise ChoiceError(f"{folder}: {what}; use NAME=FOLDER with another name")
    check_distinct([name for name, _ in folders])


def named(values: Sequence[str]) -> list[tuple[str, str]]:
    """`NAME=FOLDER` or `FOLDER`, whose own name is then taken."""
    pairs = [split_name(value) for value in values]
    return [(name or PurePath(folder).name, folder) for name, folder in pairs]


def split_name(value: str) -> tuple[str, str]:
    """Name and folder of `NAME=FOLDER`; the name is "" where a folder or an address stands alone.

    A `=` in a folder that exists, or in an address, is part of it.
    """
    name, equals, folder = value.partition("=")
    if not equals or "://" in name or Path(value).exists():
        return "", value
    return name, folder
