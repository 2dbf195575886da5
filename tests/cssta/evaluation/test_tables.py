"""Markdown, CSV and JSON hold the same numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from cssta.evaluation.published import FIELD, FREEFORM
from cssta.evaluation.scoring import SequenceScore
from cssta.evaluation.tables import UNEVEN, Evaluation


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
    assert text.startswith("# Title\n\n- Trained on X.\n- On Y.\n- Warping error: mean square")
    assert "\n- LPIPS and VFID are absent: no weights were given.\n" in text
    assert "| telea | 21.00 | 0.2100 | 11.00 | 3.25 | 1.5 | 0.150 |" in text  # pooled
    assert "| cssta | 30.00 | 0.3000 | 20.00 | 3.25 | 1.5 | 0.150 |" in text  # mean of sequences
    assert "| CSSTA (the paper) | DAVIS | 28.651 | 0.815 | 12.3 |" in text  # nothing beside it
    assert "| b/c | cssta | 35.00 |" in text and "`d-a`" in text
    assert "- d: no video" in text
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, "ragged table"


def test_beside_the_paper(evaluation: Evaluation):
    assert evaluation.beside() == []
    ours = tuple(replace(s, method=s.method.replace("cssta", "network")) for s in evaluation.scores)
    evaluation = replace(evaluation, scores=ours)
    text = evaluation.markdown()
    assert "| network | 26.00 / 0.2600 | 1.5 | 0.150 | CSSTA (the paper) |" in text
    assert "## Published" not in text
    assert "ours are of 10 frames on average" in text and "the paper's of 71.54" in text
    assert evaluation.timing()[0] not in replace(evaluation, published=FIELD).markdown()


def test_methods_of_other_footage_are_told_apart(evaluation: Evaluation):
    assert UNEVEN in evaluation.markdown(), "`empty` was scored by one"
    even = replace(evaluation, scores=evaluation.scores[:4])
    assert UNEVEN not in even.markdown()


def test_metrics_of_given_weights(evaluation: Evaluation):
    scores = tuple(replace(score, lpips=0.125) for score in evaluation.scores)
    text = replace(evaluation, scores=scores, vfid={"cssta": 0.25}).markdown()
    assert "absent" not in text and "| s / frame | LPIPS | VFID |" in text
    assert "| cssta | 26.00 | 0.2600 | 16.00 | 3.25 | 1.5 | 0.150 | 0.1250 | 0.250 |" in text
    assert "- VFID is absent" in replace(evaluation, scores=scores).markdown()


def test_csv(evaluation: Evaluation):
    rows = list(csv.DictReader(io.StringIO(evaluation.csv())))
    assert len(rows) == 5 + 4
    assert (rows[1]["sequence"], rows[1]["method"], float(rows[1]["psnr"])) == ("a", "cssta", 25)
    pooled = {row["method"]: row for row in rows if row["sequence"] == "*pooled*"}
    assert float(pooled["cssta"]["psnr"]) == pytest.approx(26)
    assert {row["seconds_per_frame"] for row in rows} == {"0.15"}
    assert rows[4]["psnr"] == rows[0]["lpips"] == pooled["cssta"]["vfid"] == ""
    assert "nan" not in evaluation.csv()
    assert all(None not in row and None not in row.values() for row in rows)


def test_json(evaluation: Evaluation):
    content = json.loads(evaluation.json())
    assert content["scores"][4]["psnr"] is None
    assert content["pooled"][0]["psnr"] == pytest.approx(21)
    assert content["mean"][1]["method"] == "cssta" and content["caption"] == [
        "Trained on X.",
        "On Y.",
    ]
