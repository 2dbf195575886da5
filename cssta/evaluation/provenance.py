"""What a caption says of a model and of the machine: where weights come from, where time was taken.

A model folder's card is its README.md: the first table of two columns says what was trained on
what, for how long, on which machine.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

import torch

from cssta.checkpoint import DEFAULT_MODEL

SHORT_CELLS = (
    "training footage",
    "never trained on",
    "started from",
    "steps",
    "time",
    "machine",
    "losses",
)


def describe_model(folder: str | Path | None, label: str = "") -> str:
    """One sentence about a model folder (None: the default weights), from its card.

    `label`: how tables call it, where there are several.
    """
    path = Path(folder) if folder is not None else DEFAULT_MODEL
    default = path.resolve() == DEFAULT_MODEL.resolve()
    name = label or ("the default weights" if default else path.name)
    card = path / "README.md"
    if not card.is_file():
        return f"Model: {name}, without a card: what it was trained on is not known."
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", card.read_text(encoding="utf-8"), re.M)
    known = {key.lower(): value.replace("**", "") for key, value in rows}
    told = [f"{key}: {known[key]}" for key in SHORT_CELLS if key in known]
    text = card.read_text(encoding="utf-8").lower()
    is_short = re.search(r"\bshort (cpu )?run\b", text)
    short = " These weights are of a short run." if is_short else ""
    return f"Model: {name}; " + ("; ".join(told) or f"see {card}") + f".{short}"


def describe_footage(name: str, layout: str, sequences: int, longest: int | None) -> str:
    """One sentence about what was completed: so many `sequences`, all or `longest` frames."""
    frames = "all frames" if longest is None else f"the first {count(longest, 'frame')}"
    return f"Footage: {name} ({layout}), {count(sequences, 'sequence')}, {frames} of each."


def describe_methods(notes: Mapping[str, str]) -> list[str]:
    """One sentence about what stands behind the names in a table; none without a name."""
    told = "; ".join(f"{name}: {note}" for name, note in notes.items())
    return [f"Methods: {told}."] if told else []


def describe_results(folder: str | Path) -> str:
    """What a folder of completed clips is, for `describe_methods`."""
    return f"completed clips from the folder {PurePath(folder).name}, as they are"


def count(number: int, thing: str) -> str:
    """So many things: "1 sequence", "2 sequences"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def describe_machine(device: str | None = None) -> str:
    """One sentence about where seconds were taken."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device).startswith("cuda"):
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{cpu_name()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"Seconds on {where}; torch {torch.__version__}, Python {platform.python_version()}."


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
