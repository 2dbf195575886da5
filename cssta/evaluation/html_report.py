"""One HTML file that holds an evaluation whole: tables, panels, attention maps, no other file."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping
from pathlib import Path

from cssta.evaluation.beside import as_csv
from cssta.evaluation.tables import Evaluation

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.7em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left;
font-variant-numeric:tabular-nums}
.number{text-align:right}
th{border-bottom:2px solid #888} h2{margin-top:2em} code{background:#f2f2f2;padding:0 .3em}
img,video{max-width:100%;display:block;margin:.5em 0} figure{margin:1.5em 0} figcaption{color:#666}
"""
KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}


def write_evaluation(result: Evaluation, folder: Path, pictures: Mapping[str, Path]) -> list[Path]:
    """Write evaluation.md, .csv, .json and report.html, and a table beside the paper's as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "evaluation.md": result.markdown(),
        "evaluation.csv": result.csv(),
        "evaluation.json": result.json(),
        "report.html": html_report(result, pictures),
    }
    if lines := result.beside():
        contents["beside-the-paper.csv"] = as_csv(lines)
    for name, content in contents.items():
        partial = folder / f".{name}.part"  # (an interruption must not cost an earlier one)
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, folder / name)
    return [folder / name for name in contents]


def html_report(evaluation: Evaluation, pictures: Mapping[str, Path]) -> str:
    """The report as one page; `pictures`: caption -> PNG, JPEG or mp4 file, embedded."""
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(evaluation.title)}</title><style>{STYLE}</style></head><body>",
        _body(evaluation.markdown()),
    ]
    if pictures:
        lines.append("<h2>Pictures</h2>")
    for caption, path in pictures.items():
        text = html.escape(caption)
        address = _data_address(path)
        if path.suffix == ".mp4":
            shown = f'<video controls loop muted src="{address}"></video>'
        else:
            shown = f'<img alt="{text}" src="{address}">'
        lines.append(f"<figure>{shown}<figcaption>{text}</figcaption></figure>")
    return "\n".join([*lines, "</body></html>", ""])


def _data_address(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{KINDS[path.suffix]};base64,{content}"


def _body(markdown: str) -> str:
    """The little Markdown that our tables are written in: headings, tables, lists, paragraphs."""
    lines: list[str] = []
    rows: list[str] = []
    listed = False

    def end_table() -> None:
        if rows:
            lines.append(_table(rows))
            rows.clear()

    for line in markdown.splitlines():
        if line.startswith("|"):
            rows.append(line)
            continue
        end_table()
        if listed != line.startswith("- "):
            lines.append("</ul>" if listed else "<ul>")
            listed = not listed
        level = len(line) - len(line.lstrip("#"))
        if level:
            lines.append(f"<h{level}>{_inline(line[level:].strip())}</h{level}>")
        elif line:
            text = _inline(line.removeprefix("- "))
            lines.append(f"<li>{text}</li>" if listed else f"<p>{text}</p>")
    end_table()
    if listed:
        lines.append("</ul>")
    return "\n".join(lines)


def _table(rows: list[str]) -> str:
    cells = [[_inline(cell.strip()) for cell in row.strip("|").split("|")] for row in rows]
    head, _, *body = cells
    kinds = [
        all(not c or c[0].isdigit() or c[0] == "-" for c in column)
        for column in zip(*body, strict=True)
    ]
    marks = [' class="number"' if number else "" for number in kinds or [False] * len(head)]

    def row(tag: str, cells: list[str]) -> str:
        pairs = zip(marks, cells, strict=True)
        return "<tr>" + "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in pairs) + "</tr>"

    return "<table>" + row("th", head) + "".join(row("td", cells) for cells in body) + "</table>"


def _inline(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
