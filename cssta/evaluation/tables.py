"""An evaluation's results as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cssta.evaluation.published import Published
from cssta.evaluation.scoring import METRICS, Mean, SequenceScore, mean

HEADS = "| method | PSNR | SSIM | hole PSNR | warping error x1000 | s / video |"
# By weights that the user supplies; neither is shipped, and what is not measured is not guessed.
ABSENT = "VFID and LPIPS are absent: they need weights that are not supplied with this project."


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run, and what has to be said with them.

    `caption`: sentences: protocol, footage, what was trained on what, machine. `failed`: what could
    not be scored, and why.
    """

    title: str
    caption: tuple[str, ...]
    scores: tuple[SequenceScore, ...]
    published: tuple[Published, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order in which they were scored."""
        return tuple(dict.fromkeys(score.method for score in self.scores))

    @property
    def sequences(self) -> tuple[str, ...]:
        """In the order in which they were scored."""
        return tuple(dict.fromkeys(score.sequence for score in self.scores))

    def of(self, method: str) -> list[SequenceScore]:
        """A method's scores."""
        return [score for score in self.scores if score.method == method]

    def means(self, *, pooled: bool) -> list[Mean]:
        """One per method: pooled over all frames, or of the sequences' means."""
        return [mean(self.of(method), pooled=pooled) for method in self.methods]

    def markdown(self) -> str:
        """Means beside published figures, then every sequence, then the masks' digests."""
        lines = [f"# {self.title}", "", *self.caption, ABSENT]
        for pooled, title in ((True, "Pooled over all frames"), (False, "Mean of sequences")):
            lines += ["", f"## {title}", "", HEADS, "| --- |" + " --- |" * 5]
            lines += [_row(one.method, one) for one in self.means(pooled=pooled)]
        if self.published:
            lines += ["", "## Published (the authors' own figures, their holes and footage)", ""]
            lines += ["| method | data | PSNR | SSIM | s / video |", "| --- |" + " --- |" * 4]
            for row in self.published:
                seconds = "" if row.seconds is None else f"{row.seconds:g}"
                lines.append(
                    f"| {row.method} | {row.data} | {row.psnr:g} | {row.ssim:g} | {seconds} |"
                )
        lines += ["", "## By sequence", "", HEADS.replace("| method", "| sequence | method")]
        lines.append("| --- |" + " --- |" * 6)
        for sequence in self.sequences:
            for score in self.scores:
                if score.sequence == sequence:
                    lines.append(_row(f"{_cell(sequence)} | {_cell(score.method)}", score))
        lines += ["", "## Holes", "", "| sequence | frames | with a hole | hole % | masks |"]
        lines.append("| --- |" + " --- |" * 4)
        for sequence in self.sequences:
            one = next(score for score in self.scores if score.sequence == sequence)
            lines.append(
                f"| {_cell(sequence)} | {one.frames} | {one.holes} | "
                f"{_number(100 * one.hole_ratio, 1)} | `{one.masks}` |"
            )
        if self.failed:
            lines += ["", "## Failed", "", *(f"- {text}" for text in self.failed)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line per sequence and method, then the means as sequences `*pooled*`, `*mean*`."""
        text = io.StringIO()
        columns = ["sequence", "method", "frames", "holes", "hole_ratio", "masks", *METRICS]
        writer = csv.DictWriter(text, [*columns, "seconds"], lineterminator="\n")
        writer.writeheader()
        for score in self.scores:
            writer.writerow(asdict(score))
        for pooled, name in ((True, "*pooled*"), (False, "*mean*")):
            for one in self.means(pooled=pooled):
                row = asdict(one) | {"sequence": name, "holes": one.frames, "masks": ""}
                writer.writerow({k: v for k, v in row.items() if k not in ("pooled", "sequences")})
        return text.getvalue()

    def json(self) -> str:
        """Everything, with null for nan."""
        content = asdict(self) | {
            "pooled": [asdict(one) for one in self.means(pooled=True)],
            "mean": [asdict(one) for one in self.means(pooled=False)],
        }
        return json.dumps(_without_nan(content), indent=1, allow_nan=False)


def markdown_table(means: Sequence[Mean]) -> str:
    """The short table for the terminal."""
    return "\n".join([HEADS, "| --- |" + " --- |" * 5, *(_row(m.method, m) for m in means)])


def _row(name: str, row: Mean | SequenceScore) -> str:
    cells = [
        _number(row.psnr, 2),
        _number(row.ssim, 4),
        _number(row.hole_psnr, 2),
        _number(row.warping_error, 2),
        _number(row.seconds, 1),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
