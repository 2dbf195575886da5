"""A histogram counts every value, and marks those beyond the limit."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from pipelines.batch_charts import histogram


@pytest.mark.parametrize("values", [[1.0], [1.0] * 9, [0.5, 1, 1.5], [1.0] * 200 + [1e6]])
@pytest.mark.parametrize("limit", [None, 1.8])
def test_every_value_is_in_a_bar(values: list[float], limit: float | None):
    chart = ET.fromstring(histogram(values, "seam & <more>", limit, low=False))
    counts = [int(t.text.rsplit(" ", 1)[1]) for t in chart.iter("title")]
    assert sum(counts) == len(values)
    bad = [bar for bar in chart.iter("rect") if bar.get("class") == "bad"]
    assert bool(bad) == (limit is not None and max(values) > limit)
    assert all(float(bar.get("x")) >= 0 and float(bar.get("height")) > 0 for bar in bad)


def test_where_low_is_bad_the_low_bars_are_marked():
    chart = ET.fromstring(histogram([5.0, 20.0, 30.0], "PSNR", 10.0, low=True))
    bars = list(chart.iter("rect"))
    assert [bar.get("class") for bar in bars] == ["bad", "bar", "bar"]
    assert "limit 10" in [text.text for text in chart.iter("text")]
