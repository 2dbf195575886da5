"""Published figures that ours stand beside. All are the authors' own, none measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """PSNR in dB and SSIM of a method on a data set, seconds per video where they are given."""

    method: str
    data: str
    psnr: float
    ssim: float
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the paper: which holes, which methods stand for the paper's rows.

    `methods`: of each model, in an ablation of the first; `others`: of the other models there.
    """

    title: str
    protocol: str
    holes: str
    methods: tuple[str, ...]
    rows: tuple[Published, ...]
    others: tuple[str, ...] | None = None


def _both(method: str, youtube: tuple[float, float], davis: tuple[float, float], seconds=None):
    return (
        Published(method, "YouTube-VOS", *youtube, seconds),
        Published(method, "DAVIS", *davis, seconds),
    )


FREEFORM = (
    *_both("GatedConv", (24.418, 0.788), (23.623, 0.757), 1.40),
    *_both("DFGNet", (24.04, 0.858), (25.16, 0.824), 934),
    *_both("VINet", (21.207, 0.748), (21.619, 0.750), 15.8),
    *_both("CSSTA (the paper)", (27.939, 0.906), (28.651, 0.815), 12.3),
)
OBJECTS = (
    *_both("GatedConv", (24.537, 0.822), (23.913, 0.797)),
    *_both("DFGNet", (25.77, 0.890), (26.04, 0.883)),
    *_both("VINet", (25.775, 0.875), (25.325, 0.864)),
    *_both("CSSTA (the paper)", (28.127, 0.926), (28.744, 0.956)),
)
FULL = Published("CSSTA (the paper)", "YouTube-VOS", 27.939, 0.906)
FRAMES_PER_VIDEO = 71.54  # of the paper's seconds, on average
FIELD = (
    *_both("VINet", (29.20, 0.9434), (28.96, 0.9411)),
    *_both("DFGNet", (29.16, 0.9429), (28.81, 0.9404)),
    *_both("LGTSM", (29.74, 0.9504), (28.57, 0.9409)),
    *_both("CPNet", (31.58, 0.9607), (30.28, 0.9521)),
    *_both("STTN", (32.34, 0.9655), (30.67, 0.9560)),
    *_both("FuseFormer", (33.29, 0.9681), (32.54, 0.9700)),
    *_both("E2FGVI", (33.71, 0.9700), (33.01, 0.9721)),
)
# Which row of the paper's tables a method stands beside.
COUNTERPARTS = {
    "stage1": "GatedConv",
    "flow": "DFGNet",
    "recurrent": "VINet",
    "network": "CSSTA (the paper)",
}
ROLES = ("telea", "nearest", "aligned", "stage1", "flow", "recurrent", "network", "cssta")
TABLES = {
    1: Table("Table 1: free-form holes", "paper", "freeform", ROLES, FREEFORM),
    2: Table("Table 2: objects of other sequences", "paper", "objects", ROLES, OBJECTS),
    3: Table(
        "Table 3: without the CSSTA layer, and by the number of references",
        "paper",
        "freeform",
        ("stage1", "references-0", "references-2", "references-6", "references-all", "network"),
        (Published("without the CSSTA layer", "YouTube-VOS", 18.227, 0.721), FULL),
        ("network",),
    ),
    4: Table(
        "Table 4: without FeatureLoss",
        "paper",
        "freeform",
        ("network",),
        (Published("without FeatureLoss", "YouTube-VOS", 25.07, 0.841), FULL),
        ("network",),
    ),
}


def published_for(protocol: str, holes: str) -> tuple[Published, ...]:
    """What was published under a protocol; nothing for holes of one's own."""
    if protocol == "e2fgvi":
        return FIELD
    return {"freeform": FREEFORM, "objects": OBJECTS}.get(holes, ())


def counterpart(method: str, rows: Sequence[Published]) -> str:
    """The published method that ours, by its name in a table, stands beside; "" for none.

    A model or a folder of results that is called like a published one is that (upper and lower
    case are alike); else its part decides.
    """
    known = {row.method for row in rows}
    label, _, part = method.rpartition(": ")
    called = {name.lower(): name for name in known}.get((label or part).lower(), "")
    if called and (not label or part == "network"):
        return called
    if label.startswith("without "):  # another ablation than the paper's
        return ""
    role = COUNTERPARTS.get(part, "")
    return role if role in known and FULL.method in known else ""
