"""The report is one page that needs no other file; a headless browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.evaluation.html_report import html_report
from cssta.evaluation.scoring import SequenceScore
from cssta.evaluation.tables import Evaluation


@pytest.fixture
def page(tmp_path: Path) -> str:
    cv2.imwrite(str(tmp_path / "p.png"), np.full((40, 60, 3), 200, np.uint8))
    (tmp_path / "v.mp4").write_bytes(b"video")
    score = SequenceScore("<a>", "cssta", 5, 5, 0.2, "0a1b", 25.125, 0.9, 18.0, 0.5, 1.5)
    evaluation = Evaluation("A & B", ("Trained on <X>.",), (score,), failed=("c: `no` video",))
    return html_report(evaluation, {"a: panel": tmp_path / "p.png", "film": tmp_path / "v.mp4"})


def test_it_holds_everything_and_refers_to_nothing(page: str):
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) == 2 and all(source.startswith("data:") for source in sources)
    assert "<title>A &amp; B</title>" in page and "<li>Trained on &lt;X&gt;.</li>" in page
    assert '<td>&lt;a&gt;</td><td>cssta</td><td class="number">25.12</td>' in page
    assert "<code>0a1b</code>" in page and "<li>c: <code>no</code> video</li>" in page
    assert page.count("<ul>") == page.count("</ul>") == 2
    assert page.count("<table>") == page.count("</table>") == 4
    assert "data:video/mp4;base64,dmlkZW8=" in page


def test_a_browser_shows_it(page: str, tmp_path: Path):
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium here")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile",
        "--window-size=900,1200", f"--screenshot={tmp_path}/shot.png",
        (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    shot = cv2.imread(str(tmp_path / "shot.png"))
    assert shot.shape == (1200, 900, 3)
    assert (shot < 100).any(axis=2).mean() > 0.003, "no text on the page"
    assert (shot == 200).all(axis=2).sum() >= 40 * 60 * 0.9, "the picture is not shown"
