"""The report of a batch: one HTML page without any other file, and a run in MLflow."""

from __future__ import annotations

import base64
import html
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from cssta import __version__
from cssta.quality import FIGURES, LIMITS
from pipelines.batch_charts import histogram
from pipelines.batch_record import ModelIdentity, VideoOutcome
from pipelines.batch_totals import Totals, severity
from pipelines.config import ConfigError, JobConfig
from pipelines.tracking import JobRun, Run

log = logging.getLogger(__name__)

NONE = "&ndash;"
LISTED = 500  # videos in the page's table; the ledger has them all
NAMED = 10  # videos of a reason that are shown at once; the rest unfolds
SHEET_WIDTH, SHEET_QUALITY = 1600, 85  # pixels, JPEG
STATUS_WORDS = {"done": "published", "review": "held for review", "skipped": "already there",
                "failed": "quarantined"}  # fmt: skip
FIGURE_WORDS = {
    "seam": "seam: jump across the hole's edge, over that around it (1: invisible)",
    "warping": "warping: flicker in the hole, over that around it (1: as steady)",
    "self_test": "self-test: a visible place completed as a hole (PSNR in dB)",
}
STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em;margin-bottom:.2em} h2{font-size:1.15em;margin-top:2em}
p.sub{color:#666;margin:0}
.tiles{display:flex;flex-wrap:wrap;gap:.8em;margin:1.2em 0}
.tile{border:1px solid #ddd;border-radius:6px;padding:.5em 1em;min-width:7em}
.tile b{display:block;font-size:1.6em;font-weight:600} .tile span{color:#666}
.tile.bad b,td.bad{color:#b3261e} .tile.warn b,td.warn{color:#8a5a00}
table{border-collapse:collapse;margin:.7em 0}
td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top;
overflow-wrap:anywhere} td:first-child{min-width:10em}
th{border-bottom:2px solid #888} .n{text-align:right;font-variant-numeric:tabular-nums;
white-space:nowrap;overflow-wrap:normal}
.scroll{overflow-x:auto} .charts{display:flex;flex-wrap:wrap;gap:1em}
.charts figure{margin:.5em 0}
figure{margin:1.5em 0} figcaption{color:#444} .charts figcaption{width:340px}
img{max-width:100%;display:block;border:1px solid #ddd}
svg text{font:11px system-ui,sans-serif;fill:#555} svg .bar{fill:#4a7fb5} svg .bad{fill:#c9443b}
svg .axis{stroke:#888} svg line.limit{stroke:#b3261e;stroke-dasharray:4 3}
svg text.limit{fill:#b3261e}
code{background:#f2f2f2;padding:0 .3em;overflow-wrap:anywhere} summary{cursor:pointer}
"""


def write_report(
    path: Path,
    outcomes: Sequence[VideoOutcome],
    *,
    model: ModelIdentity,
    seconds: float,
    title: str,
    worst: Sequence[tuple[str, Path]] = (),
    limits: Mapping[str, float | None] = LIMITS,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the page.

    Args:
        seconds: what the run took, by the clock.
        worst: names of videos (see `worst_of`) and their contact sheets, PNG or JPEG; shrunk to
            fit. One that cannot be read is told, and left out.
        limits: those the videos were judged by.
        facts: more to be told of the run, such as where the ledger is.
    """
    totals = Totals.of(outcomes, seconds)
    known = {outcome.name: outcome for outcome in outcomes}
    lines = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        f"<p class=sub>model {_text(model.describe())}, cssta {__version__}</p>",
        _tiles(totals),
        *_failures(outcomes, totals),
        *_reviews(outcomes),
        *_distribution(totals, limits),
        *_pictures(worst, known),
        *_videos(outcomes, limits),
        *_about({"model": model.source, "version": model.version, "model digest": model.digest,
                 **(facts or {})}),
        "</body></html>\n",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def log_to_mlflow(
    cfg: JobConfig,
    outcomes: Sequence[VideoOutcome],
    *,
    model: ModelIdentity,
    seconds: float,
    files: Sequence[Path] = (),
) -> str | None:
    """A run with the batch's figures and files, tied to the version of the model that it used.

    Returns its id. A batch must not fail because nobody keeps its books: where MLflow cannot be
    reached, that is warned of, and the id is None.
    """
    try:
        run = JobRun.start(cfg, job="batch")
    except ConfigError as error:
        log.warning("the batch is not logged: %s", error)
        return None
    with run:
        run.set_tags(
            {"model": model.source, "model_version": model.version, "model_digest": model.digest}
        )
        run.log_metrics(Totals.of(outcomes, seconds).metrics())
        for file in files:
            run.log_file(file)
        if model.version.startswith("models:/"):
            _tie(run, model.version)
    return run.run_id


def _tie(run: Run, version: str) -> None:
    """Have MLflow show the run with the registered version (models:/name/3) that it used."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelInput

    try:
        client = MlflowClient(run.tracking_uri, run.tracking_uri)
        name, number = version.removeprefix("models:/").rsplit("/", 1)
        found = client.get_model_version(name, number)
        run.set_tags({"model_run": found.run_id})
        # (Versions keep no id of their model, but where it came from: models:/<id>.)
        if found.source.startswith("models:/m-"):
            model_id = found.source.removeprefix("models:/")
            client.log_inputs(run.run_id, models=[LoggedModelInput(model_id)])
    except Exception as error:
        log.warning("the batch's run is not tied to %s: %s", version, error)


def duration(seconds: float) -> str:
    """For people: 8.2 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _tiles(totals: Totals) -> str:
    marks = {"failed": "bad", "review": "warn"}
    tiles = [
        (f"{count:,}", STATUS_WORDS[status], marks.get(status, "") if count else "")
        for status, count in totals.videos.items()
    ]
    tiles += [
        (f"{totals.frames:,}", f"frames completed, {totals.hole_frames:,} with a hole", ""),
        (f"{totals.rate:.2f}" if totals.frames else NONE, "frames per second, all in all", ""),
        (duration(totals.seconds), "from start to end", ""),
    ]
    cells = "".join(
        f'<div class="tile {mark}"><b>{value}</b><span>{words}</span></div>'
        for value, words, mark in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _failures(outcomes: Sequence[VideoOutcome], totals: Totals) -> list[str]:
    if not totals.failures:
        return []
    lines = ["<h2>Failures by reason</h2>"]
    for reason, count in totals.failures.items():
        failed = [o for o in outcomes if o.status == "failed" and o.reason == reason]
        lines.append(f"<p><b>{_text(reason or 'other')}</b>: {count}</p>")
        lines.append(_names([(o.name, o.message) for o in failed]))
    return lines


def _reviews(outcomes: Sequence[VideoOutcome]) -> list[str]:
    held = [(o.name, o.review or o.message) for o in outcomes if o.standing == "review"]
    if not held:
        return []
    intro = "<p>Completed and verified, but not published under their names: look at them.</p>"
    return ["<h2>Held for review</h2>", intro, _names(held)]


def _names(rows: Sequence[tuple[str, str]]) -> str:
    def table(part: Sequence[tuple[str, str]]) -> str:
        cells = (
            f"<tr><td>{_text(name)}</td><td>{_text(message)}</td></tr>" for name, message in part
        )
        return f"<table>{''.join(cells)}</table>"

    rest = rows[NAMED:]
    more = f"<details><summary>{len(rest)} more</summary>{table(rest)}</details>" if rest else ""
    return table(rows[:NAMED]) + more


def _distribution(totals: Totals, limits: Mapping[str, float | None]) -> list[str]:
    charts = [
        f"<figure>{histogram(values, f'{key}, {len(values)} videos', limits.get(key), low=low)}"
        f"<figcaption>{_text(FIGURE_WORDS[key])}</figcaption></figure>"
        for key, values in totals.quality.items()
        if values
        for low in [key == "self_test"]
    ]
    if not charts:
        return []
    return ["<h2>Quality</h2>", f'<div class="charts">{"".join(charts)}</div>']


def _pictures(worst: Sequence[tuple[str, Path]], known: Mapping[str, VideoOutcome]) -> list[str]:
    if not worst:
        return []
    lines = ["<h2>Contact sheets, the worst first</h2>"]
    for name, path in worst:
        outcome = known.get(name)
        told = [f"<b>{_text(name)}</b>"]
        if outcome is not None:
            told += [f"{key} {_figure(key, outcome.quality.get(key))}" for key in FIGURES]
            told += [_text(outcome.review)] if outcome.review else []
        address = _embedded(path)
        picture = (
            f'<img alt="contact sheet of {_text(name)}" src="{address}">'
            if address
            else "<p>(its contact sheet could not be read)</p>"
        )
        lines.append(f"<figure><figcaption>{' · '.join(told)}</figcaption>{picture}</figure>")
    return lines


def _videos(outcomes: Sequence[VideoOutcome], limits: Mapping[str, float | None]) -> list[str]:
    order = {"failed": 0, "review": 1}
    ranked = sorted(
        outcomes, key=lambda o: (order.get(o.standing, 2), -severity(o, limits), o.name)
    )  # fmt: skip
    heads = ["video", "", "frames", "size", "s / frame", "hole %", *FIGURES]
    rows = ["".join(f"<th{' class=n' if i > 1 else ''}>{h}</th>" for i, h in enumerate(heads))]
    marks = {"failed": " class=bad", "review": " class=warn"}
    for o in ranked[:LISTED]:
        cells = [
            f"{o.frames:,}" if o.frames else NONE,
            f"{o.width}&times;{o.height}" if o.width else NONE,
            f"{o.seconds / o.frames:.3f}" if o.frames and o.seconds else NONE,
            NONE if math.isnan(o.hole_ratio) else f"{100 * o.hole_ratio:.1f}",
            *(_figure(key, o.quality.get(key)) for key in FIGURES),
        ]
        rows.append(
            f"<td>{_text(o.name)}</td>"
            f"<td{marks.get(o.standing, '')}>{STATUS_WORDS.get(o.standing, _text(o.standing))}</td>"
            + "".join(f"<td class=n>{cell}</td>" for cell in cells)
        )
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    left = len(outcomes) - LISTED
    note = f"<p>{left:,} more are in the ledger.</p>" if left > 0 else ""
    return ["<h2>Videos, the worst first</h2>", f'<div class="scroll"><table>{table}</table></div>',
            note]  # fmt: skip


def _about(facts: Mapping[str, str]) -> list[str]:
    rows = "".join(
        f"<tr><td>{_text(key)}</td><td><code>{_text(value)}</code></td></tr>"
        for key, value in facts.items()
    )
    return ["<h2>About this run</h2>", f"<table>{rows}</table>"]


def _figure(key: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.1f} dB" if key == "self_test" else f"{value:.2f}"


def _embedded(path: Path) -> str:
    """A picture as a data address, no wider than the page needs it; "" if it cannot be read."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    if picture is None:
        return ""
    height, width = picture.shape[:2]
    if width > SHEET_WIDTH:
        size = SHEET_WIDTH, max(1, round(height * SHEET_WIDTH / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _text(value: object) -> str:
    return html.escape(str(value))
