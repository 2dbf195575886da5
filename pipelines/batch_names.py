"""Names of a batch's outputs: never outside the output's folder, never two alike.

Names come from listings and manifests, which anybody may have written: `..`, a leading `/`, control
characters, names too long for a file system, names that only differ in case or in the form of an
accent, a file where another needs a folder. What is harmless (spaces, `#`, `%`, any script) stays.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from cssta.video.rehearsal import CONTAINERS
from pipelines.storage import PICTURE_SUFFIXES, VIDEO_SUFFIXES

WORK, REVIEW, OUTDATED, QUARANTINE = "_work", "_review", "_outdated", "_quarantine"
SHEETS = "contact-sheets"
SUMMARY, REPORT, LEDGER = "batch-summary.json", "batch-report.html", "batch-ledger.parquet"
RESERVED = {WORK, REVIEW, OUTDATED, QUARANTINE, SHEETS, SUMMARY, REPORT, LEDGER}

LONGEST_PART = 180  # bytes; file systems allow 255, and records and temporary names add some
OTHER_CONTAINER, PICTURES_CONTAINER = ".mkv", ".mp4"

# What lies beside footage and nobody takes for it.
COMPANIONS = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".md5", ".ndjson", ".parquet")
COMPANIONS += (".pdf", ".sha256", ".srt", ".txt", ".vtt", ".xml", ".yaml", ".yml")
UNSUPPORTED = (
    "no video that is known by its ending; rename it if it is one, or keep it somewhere else"
)


def is_unsupported(name: str) -> bool:
    """Whether a listed file may be footage, but has no ending of a video or picture.

    Hidden files are left out by whoever hid them.
    """
    return not _is_hidden(name) and PurePosixPath(name).suffix.lower() not in (
        *VIDEO_SUFFIXES, *PICTURE_SUFFIXES, *COMPANIONS
    )  # fmt: skip


def is_footage(name: str) -> bool:
    """Whether a listed file is a video by its ending, or may be one (see `is_unsupported`)."""
    is_video = not _is_hidden(name) and PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES
    return is_video or is_unsupported(name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def output_names(names: Iterable[str]) -> dict[str, str]:
    """Source name to output name, both relative.

    A name whose ending is one that is written stays (`a/b.mov`), `b.avi` becomes `b.avi.mkv`, a
    folder of pictures `walk` becomes `walk.mp4`.
    """
    return assign_names({name: name for name in names})


def assign_names(wanted: Mapping[str, str], recorded: Collection[str] = ()) -> dict[str, str]:
    """Key to output name, near what is wanted for it; the same whatever the order.

    Names that can be had as they are come first, so they keep their name whatever is beside them;
    before them those that are `recorded`, outputs of an earlier run: `b.mp4` keeps its name when
    `B.mp4` comes later, and what was named apart stays so when the other goes.
    """
    outputs: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()

    def order(key: str) -> tuple[bool, bool, str, str]:
        name = safe_name(wanted[key])
        return name not in recorded, name != wanted[key], wanted[key], key

    for key in sorted(wanted, key=order):
        name, apart = safe_name(wanted[key]), _apart(key, safe_name(wanted[key]))
        kept_apart = apart in recorded and name not in recorded
        if kept_apart or _collides(name, files, folders):
            name = apart
        files |= {_same(name), _same(f"{name}.json")}
        folders |= {_same(str(parent)) for parent in PurePosixPath(name).parents}
        outputs[key] = name
    return outputs


def _apart(key: str, name: str) -> str:
    """A name for what collides with another; its own, whatever it collides with."""
    path = PurePosixPath(name)
    mark = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:12]
    # In the top folder no other name can be a folder of this one's.
    flat = _short("_".join(path.with_suffix("").parts), LONGEST_PART - 20)
    return f"{flat}.{mark}{path.suffix}"


def safe_name(name: str) -> str:
    """The name as a relative path that stays below its folder, with an ending that is written."""
    parts = [_safe_part(part) for part in name.split("/") if part not in ("", ".")]
    parts = parts or ["video"]
    if _same(parts[0]) in RESERVED:
        parts[0] = f"_{parts[0]}"
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    if suffix not in CONTAINERS:
        parts[-1] += OTHER_CONTAINER if suffix in VIDEO_SUFFIXES else PICTURES_CONTAINER
    return "/".join(parts)


def printable(text: str) -> str:
    """The text with lone surrogates, which no file can hold, spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _safe_part(part: str) -> str:
    if part == "..":
        return "__"
    part = "".join("_" if unicodedata.category(c) in ("Cc", "Cs") else c for c in part)
    return _short(part, LONGEST_PART)


def _short(part: str, longest: int) -> str:
    """At most so many bytes of UTF-8, the ending kept, told apart by a digest."""
    content = part.encode()
    if len(content) <= longest:
        return part
    suffix = PurePosixPath(part).suffix
    suffix = suffix if len(suffix) < 10 else ""
    mark = hashlib.sha256(content).hexdigest()[:12]
    stem = content[: longest - len(suffix) - 13].decode(errors="ignore")
    return f"{stem}.{mark}{suffix}"


def _collides(name: str, files: set[str], folders: set[str]) -> bool:
    own = {_same(name), _same(f"{name}.json")}
    above = {_same(str(parent)) for parent in PurePosixPath(name).parents}
    return bool(own & (files | folders) or above & files)


def _same(name: str) -> str:
    """Equal for names that some file system holds for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
