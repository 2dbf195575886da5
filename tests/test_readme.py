"""What the public pages point at exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "BENCHMARKS.md",
    "CONTRIBUTING.md",
    "infra/README.md",
    "cssta/weights/README.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    text = (REPOSITORY / page).read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [
        link
        for link in links
        if link and "://" not in link and not ((REPOSITORY / page).parent / link).exists()
    ]
    assert not missing


def test_commands_name_files_and_targets_that_exist():
    text = (REPOSITORY / "README.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)\b", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for path in re.findall(r"\b(?:jobs|infra|cssta)/[\w./-]+\.(?:py|yaml|md)\b", text):
        assert (REPOSITORY / path).exists(), path
