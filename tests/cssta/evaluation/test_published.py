"""Which of the paper's rows ours stand beside."""

from __future__ import annotations

import pytest

from cssta.evaluation.published import FIELD, TABLES, counterpart


@pytest.mark.parametrize(
    ("table", "method", "beside"),
    [
        (1, "stage1", "GatedConv"),
        (1, "flow", "DFGNet"),
        (2, "recurrent", "VINet"),
        (2, "network", "CSSTA (the paper)"),
        (1, "cssta", ""),  # flow and networks: the paper has nothing like it
        (1, "mine: network", "CSSTA (the paper)"),
        (3, "full: network", "CSSTA (the paper)"),
        (3, "full: stage1", ""),
        (3, "full: references-2", ""),
        (3, "without the CSSTA layer: network", "without the CSSTA layer"),
        (3, "without hole-region attention: network", ""),
        (1, "vinet", "VINet"),  # results, called like a published method
        (4, "without FeatureLoss: network", "without FeatureLoss"),
    ],
)
def test_counterparts(table: int, method: str, beside: str):
    assert counterpart(method, TABLES[table].rows) == beside


def test_the_fields_figures_are_of_other_networks_than_ours():
    assert counterpart("flow", FIELD) == ""
    assert counterpart("E2FGVI", FIELD) == "E2FGVI"


def test_the_papers_figures():
    rows = {(r.method, r.data): (r.psnr, r.ssim) for n in TABLES for r in TABLES[n].rows if n != 2}
    assert rows["CSSTA (the paper)", "DAVIS"] == (28.651, 0.815)
    assert rows["without the CSSTA layer", "YouTube-VOS"] == (18.227, 0.721)
    assert rows["without FeatureLoss", "YouTube-VOS"] == (25.07, 0.841)
