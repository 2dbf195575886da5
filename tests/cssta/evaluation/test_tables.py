"""Markdown, CSV and JSON hold the same numbers."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from cssta.evaluation.published import FREEFORM
from cssta.evaluation.scoring import SequenceScore
from cssta.evaluation.tables import Evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    def score(sequence: str, method: str, holes: int, value: float) -> SequenceScore:
        scores = (value, value / 100, value - 10, 3.25, 1.5)
        return SequenceScore(sequence, method, 10, holes, 0.16, f"d-{sequence[0]}", *scores)

    scores = (
        score("a", "telea", 9, 20.0),
        score("a", "cssta", 9, 25.0),
        score("b|c", "telea", 1, 30.0),
        score("b|c", "cssta", 1, 35.0),
        score("empty", "telea", 0, math.nan),
    )
    return Evaluation("Title", ("Trained on X.", "On Y."), scores, FREEFORM, ("d: no video",))


def test_markdown(evaluation: Evaluation):
    text = evaluation.markdown()
    assert text.startswith("# Title\n\nTrained on X.\nOn Y.\nVFID and LPIPS are absent")
    assert "| telea | 21.00 | 0.2100 | 11.00 | 3.25 | 1.5 |" in text  # pooled
    assert "| cssta | 30.00 | 0.3000 | 20.00 | 3.25 | 1.5 |" in text  # mean of sequences
    assert "| CSSTA (the paper) | DAVIS | 28.651 | 0.815 | 12.3 |" in text
    assert "| b/c | cssta | 35.00 |" in text and "`d-a`" in text
    assert "- d: no video" in text
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, "ragged table"


def test_csv(evaluation: Evaluation):
    rows = list(csv.DictReader(io.StringIO(evaluation.csv())))
    assert len(rows) == 5 + 4
    assert (rows[1]["sequence"], rows[1]["method"], float(rows[1]["psnr"])) == ("a", "cssta", 25)
    pooled = {row["method"]: row for row in rows if row["sequence"] == "*pooled*"}
    assert float(pooled["cssta"]["psnr"]) == pytest.approx(26)
    assert all(None not in row and None not in row.values() for row in rows)


def test_json(evaluation: Evaluation):
    content = json.loads(evaluation.json())
    assert content["scores"][4]["psnr"] is None
    assert content["pooled"][0]["psnr"] == pytest.approx(21)
    assert content["mean"][1]["method"] == "cssta" and content["caption"] == [
        "Trained on X.",
        "On Y.",
    ]
