"""A histogram as SVG text, for a page that must not need any other file."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 340, 150, 34, 14, 34  # pixels
BINS = 20


def histogram(values: Sequence[float], caption: str, limit: float | None, *, low: bool) -> str:
    """Bars of how many of `values` lie where, those beyond the limit in another colour.

    `low`: what is below the limit is bad, else what is above. Far outliers share the last bar.
    """
    finite = np.asarray(values, dtype=float)
    start, stop = _range(finite, limit)
    counts, edges = np.histogram(np.clip(finite, start, stop), BINS, (start, stop))
    tallest = max(int(counts.max()), 1)
    plot_width, plot_height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM
    base = HEIGHT - BOTTOM

    def x(value: float) -> float:
        return LEFT + plot_width * (value - start) / (stop - start)

    parts = [
        f'<svg role="img" aria-label="{html.escape(caption)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">'
    ]
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if not count:
            continue
        middle = (left + right) / 2
        bad = limit is not None and (middle < limit if low else middle > limit)
        height = plot_height * count / tallest
        parts.append(
            f'<rect class="{"bad" if bad else "bar"}" x="{x(left) + 0.5:.1f}" '
            f'y="{base - height:.1f}" width="{plot_width / BINS - 1:.1f}" height="{height:.1f}">'
            f"<title>{left:.2f} to {right:.2f}: {count}</title></rect>"
        )
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - 8}" y2="{base}"/>')
    parts.append(f'<text x="{LEFT - 5}" y="{TOP + 8}" text-anchor="end">{tallest}</text>')
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        value = start + share * (stop - start)
        more = "+" if share == 1 and finite.max() > stop else ""
        parts.append(
            f'<text x="{x(value):.1f}" y="{base + 14}" text-anchor="{anchor}">{value:.3g}{more}'
            "</text>"
        )
    if limit is not None:
        parts.append(
            f'<line class="limit" x1="{x(limit):.1f}" y1="{TOP}" x2="{x(limit):.1f}" y2="{base}"/>'
            f'<text class="limit" x="{x(limit):.1f}" y="{TOP - 3}" text-anchor="middle">'
            f"limit {limit:g}</text>"
        )
    parts.append(
        f'<text x="{LEFT + plot_width / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{html.escape(caption)}</text></svg>"
    )
    return "".join(parts)


def _range(values: np.ndarray, limit: float | None) -> tuple[float, float]:
    """What is shown: all values but far outliers, and the limit, with a little room."""
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    high = max(high, float(np.median(values)) + 1e-6)
    if high < values.max() <= high + (high - low):
        high = float(values.max())
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room
