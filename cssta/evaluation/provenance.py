"""What a caption says of a model and of the machine: where weights come from, where time was taken.

A model folder's card is its README.md: the first table of two columns says what was trained on
what, for how long, on which machine.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

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
