"""An evaluation's results as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cssta.evaluation.published import Published, counterpart
from cssta.evaluation.scoring import METRICS, Mean, SequenceScore, mean

HEADS = ("PSNR", "SSIM", "hole PSNR", "warping error x1000", "s / video")
# What the table's warping error is, and is not.
WARPING = (
    "Warping error: mean square in [0, 1] of what differs from the frame before, in the hole, by "
    "the true clip's own flow (OpenCV's DIS). The field's E_warp takes FlowNet2 and whole frames."
)
BESIDE = (
    "method", "PSNR / SSIM", "s / video",
    "the paper's", "YouTube-VOS PSNR / SSIM", "DAVIS PSNR / SSIM", "s / video",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run, and what has to be said with them.

    `caption`: sentences: protocol, footage, what was trained on what, machine. `failed`: what could
    not be scored, and why. `vfid`: by method, where there are weights for it.
    """

    title: str
    caption: tuple[str, ...]
    scores: tuple[SequenceScore, ...]
    published: tuple[Published, ...] = ()
    failed: tuple[str, ...] = ()
    vfid: Mapping[str, float] = field(default_factory=dict)

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
        lines = [f"# {self.title}", "", *(f"- {text}" for text in self._caption())]
        if rows := self.beside_table():
            lines += ["", "## Beside the paper", "", *rows]
            lines += ["", "Ours pooled over all frames; the paper's holes and footage are its own."]
        for pooled, title in ((True, "Pooled over all frames"), (False, "Mean of sequences")):
            lines += ["", f"## {title}", "", *self.means_table(pooled=pooled)]
        if self.published and not rows:
            lines += ["", "## Published (the authors' own figures, their holes and footage)", ""]
            lines += _markdown(
                ("method", "data", "PSNR", "SSIM", "s / video"),
                [
                    [row.method, row.data, f"{row.psnr:g}", f"{row.ssim:g}", _plain(row.seconds)]
                    for row in self.published
                ],
            )
        rows = [
            [sequence, score.method, *self._cells(score)]
            for sequence in self.sequences
            for score in self.scores
            if score.sequence == sequence
        ]
        heads = ("sequence", "method", *self._heads())
        lines += ["", "## By sequence", "", *_markdown(heads, rows)]
        lines += ["", "## Holes", "", *self._holes()]
        if self.failed:
            lines += ["", "## Failed", "", *(f"- {text}" for text in self.failed)]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """One line per sequence and method, then the means as sequences `*pooled*`, `*mean*`."""
        text = io.StringIO()
        columns = ["sequence", "method", "frames", "holes", "hole_ratio", "masks", *METRICS]
        writer = csv.DictWriter(text, [*columns, "vfid", "seconds"], lineterminator="\n")
        writer.writeheader()
        for score in self.scores:
            writer.writerow(asdict(score))
        for pooled, name in ((True, "*pooled*"), (False, "*mean*")):
            for one in self.means(pooled=pooled):
                row = asdict(one) | {"sequence": name, "holes": one.frames, "masks": ""}
                row["vfid"] = self.vfid.get(one.method, math.nan)
                writer.writerow({k: v for k, v in row.items() if k not in ("pooled", "sequences")})
        return text.getvalue()

    def json(self) -> str:
        """Everything, with null for nan."""
        content = asdict(self) | {
            "pooled": [asdict(one) for one in self.means(pooled=True)],
            "mean": [asdict(one) for one in self.means(pooled=False)],
        }
        return json.dumps(_without_nan(content), indent=1, allow_nan=False)

    def beside(self) -> list[list[str]]:
        """A line of cells, as in BESIDE, for each of our methods and of the paper's rows; no lines
        where nothing of ours has a counterpart."""
        means = {one.method: one for one in self.means(pooled=True)}
        pairs = [(name, counterpart(name, self.published)) for name in means]
        if not any(theirs for _, theirs in pairs):
            return []
        found = {theirs for _, theirs in pairs}
        pairs += [("", name) for name in dict.fromkeys(r.method for r in self.published)]
        rows = []
        for ours, theirs in pairs:
            if not ours and theirs in found:
                continue
            mean_ = means.get(ours)
            cells = ["", "", ""]
            if mean_ is not None:
                scores = f"{_number(mean_.psnr, 2)} / {_number(mean_.ssim, 4)}"
                cells = [ours, scores, _number(mean_.seconds, 1)]
            known = {row.data: row for row in self.published if row.method == theirs}
            seconds = [row.seconds for row in known.values() if row.seconds is not None]
            both = (known.get(data) for data in ("YouTube-VOS", "DAVIS"))
            cells += [theirs, *(f"{row.psnr:g} / {row.ssim:g}" if row else "" for row in both)]
            rows.append([*cells, _plain(seconds[0] if seconds else None)])
        return rows

    def beside_table(self) -> list[str]:
        """The same lines as Markdown."""
        rows = self.beside()
        return _markdown(BESIDE, rows) if rows else []

    def beside_csv(self) -> str:
        """The same lines as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*BESIDE[:2], "our s / video", *BESIDE[3:6], "their s / video"])
        writer.writerows(self.beside())
        return text.getvalue()

    def means_table(self, *, pooled: bool) -> list[str]:
        """The short table, as for the terminal."""
        vfid = ("VFID",) if self.vfid else ()
        rows = []
        for one in self.means(pooled=pooled):
            more = [_number(self.vfid.get(one.method, math.nan), 3)] if vfid else []
            rows.append([one.method, *self._cells(one), *more])
        return _markdown(("method", *self._heads(), *vfid), rows)

    def _caption(self) -> list[str]:
        return [*self.caption, WARPING, *self._absent()]

    def _absent(self) -> list[str]:
        """By weights that the user supplies: what is not measured is not guessed, but said."""
        there = {"LPIPS": self._has_lpips(), "VFID": bool(self.vfid)}
        missing = [name for name, known in there.items() if not known]
        if not missing:
            return []
        are = "are" if len(missing) > 1 else "is"
        return [f"{' and '.join(missing)} {are} absent: no weights were given."]

    def _has_lpips(self) -> bool:
        return any(math.isfinite(score.lpips) for score in self.scores)

    def _heads(self) -> tuple[str, ...]:
        return (*HEADS, "LPIPS") if self._has_lpips() else HEADS

    def _cells(self, row: Mean | SequenceScore) -> list[str]:
        numbers = (
            (row.psnr, 2), (row.ssim, 4), (row.hole_psnr, 2), (row.warping_error, 2),
            (row.seconds, 1), (row.lpips, 4),
        )  # fmt: skip
        return [_number(*number) for number in numbers[: len(self._heads())]]

    def _holes(self) -> list[str]:
        firsts = [next(s for s in self.scores if s.sequence == name) for name in self.sequences]
        rows = [
            [
                s.sequence,
                str(s.frames),
                str(s.holes),
                _number(100 * s.hole_ratio, 1),
                f"`{s.masks}`",
            ]
            for s in firsts
        ]
        return _markdown(("sequence", "frames", "with a hole", "hole %", "masks"), rows)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    lines += [" | ".join(_cell(cell) for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


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
