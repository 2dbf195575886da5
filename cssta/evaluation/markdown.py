"""How tables and their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a `|` in a cell becomes `/`."""
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    lines += [" | ".join(cell.replace("|", "/") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]


def number(value: float | None, digits: int) -> str:
    """With so many decimals; "" for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def plain(value: float | None) -> str:
    """As many digits as it has; "" for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:g}"
