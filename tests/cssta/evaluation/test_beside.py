"""Ours beside the published: one line each, the same numbers as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math

import pytest

from cssta.evaluation.beside import COLUMNS, as_csv, as_table, pair
from cssta.evaluation.published import FREEFORM
from cssta.evaluation.scoring import Mean


def mean(method: str, seconds: float = 1.5) -> Mean:
    return Mean(method, True, 2, 10, 0.2, 26.0, 0.26, 16.0, 3.25, math.nan, seconds, seconds / 10)


def test_nothing_of_ours_has_a_counterpart():
    assert pair([mean("telea")], FREEFORM) == [] and as_table([]) == []


def test_lines():
    lines = pair([mean("telea"), mean("network"), mean("vinet", math.nan)], FREEFORM)
    rows = as_table(lines)[2:]
    assert rows == [
        "| telea | 26.00 / 0.2600 | 1.5 | 0.150 |  |  |  |  |  |",
        "| network | 26.00 / 0.2600 | 1.5 | 0.150 "
        "| CSSTA (the paper) | 27.939 / 0.906 | 28.651 / 0.815 | 12.3 | 0.172 |",
        "| vinet | 26.00 / 0.2600 |  |  | VINet | 21.207 / 0.748 | 21.619 / 0.75 | 15.8 | 0.221 |",
        "|  |  |  |  | GatedConv | 24.418 / 0.788 | 23.623 / 0.757 | 1.4 | 0.020 |",
        "|  |  |  |  | DFGNet | 24.04 / 0.858 | 25.16 / 0.824 | 934 | 13.056 |",
    ]


def test_one_number_per_column():
    text = as_csv(pair([mean("network"), mean("vinet", math.nan)], FREEFORM))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 + 2 and "nan" not in text
    names = {"method", "published"}
    numbers = [{k: float(v) for k, v in row.items() if v and k not in names} for row in rows]
    assert set(numbers[0]) == set(COLUMNS) - names
    assert numbers[0]["davis_ssim"] == 0.815 and numbers[0]["seconds"] == 1.5
    assert numbers[0]["published_seconds_per_frame"] == pytest.approx(12.3 / 71.54, abs=1e-6)
    assert rows[1]["seconds"] == "" and rows[2]["method"] == rows[2]["psnr"] == ""
