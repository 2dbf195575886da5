"""What a command line asks for, as protocol, methods and named folders: one machine and cluster
alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from cssta.evaluation.methods import BASELINES, check_names
from cssta.evaluation.protocols import MaskKind, Protocol, protocol
from cssta.evaluation.published import TABLES


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

    Beside folders of `results` and no `model`, none by default. Raises ValueError.
    """
    if names is not None:
        found = [name.strip() for name in names.split(",") if name.strip()]
    elif table:
        found = list(TABLES[table].methods)
    else:
        found = [] if results and not model else [*BASELINES, "network", "cssta"]
    check_names(found)
    return found


def named(values: Sequence[str]) -> list[tuple[str, str]]:
    """`NAME=FOLDER` or `FOLDER`, whose own name is then taken."""
    pairs = []
    for value in values:
        name, equals, folder = value.partition("=")
        folder = folder if equals else value
        pairs.append((name if equals else PurePath(folder).name, folder))
    return pairs
