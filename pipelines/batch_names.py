"""Names of a batch's outputs: never outside the output's folder, never two alike.

Names come from listings and manifests, which anybody may have written: `..`, a leading `/`, control
characters, names too long for a file system, names that only differ in case or in the form of an
accent, a file where another needs a folder. What is harmless (spaces, `#`, `%`, any script) stays.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from cssta.video.rehearsal import CONTAINERS
from pipelines.storage import PICTURE_SUFFIXES, VIDEO_SUFFIXES

WORK, REVIEW, OUTDATED, QUARANTINE = "_work", "_review", "_outdated", "_quarantine"
SHEETS = "contact-sheets"
SUMMARY, REPORT, LEDGER = "batch-summary.json", "batch-report.html", "batch-ledger.parquet"
RESERVED = {WORK, REVIEW, OUTDATED, QUARANTINE, SHEETS, SUMMARY, REPORT, LEDGER}

LONGEST_PART = 180  # bytes; file systems allow 255, and records and temporary names add some
LONGEST_NAME = 600  # bytes; S3's keys have 1,024 at most, of which the output's folder needs some
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


def assign_names(
    wanted: Mapping[str, str],
    recorded: Collection[str] = (),
    owners: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Key to output name, near what is wanted for it; the same whatever the order.

    Names that can be had as they are come first, so they keep their name whatever is beside them;
    before them those that are `recorded`, outputs of an earlier run: `b.mp4` keeps its name when
    `B.mp4` comes later, and what was named apart stays so when the other goes.

    Args:
        owners: key by recorded name, as far as it is known whose output that is (see `contested`).
    """
    owners = owners or {}
    outputs: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()

    def is_own(key: str, name: str) -> bool:
        return name in recorded and owners.get(name, key) == key

    def order(key: str) -> tuple[bool, bool, str, str]:
        name = safe_name(wanted[key])
        return not is_own(key, name), name != wanted[key], wanted[key], key

    for key in sorted(wanted, key=order):
        name, apart = safe_name(wanted[key]), _apart(key, safe_name(wanted[key]))
        if apart in recorded and not is_own(key, name):
            name = apart
        times = 0
        while _collides(name, files, folders):
            name, times = _apart(key, safe_name(wanted[key]), times), times + 1
        files |= _files(name)
        folders |= _above(name)
        outputs[key] = name
    return outputs


def contested(wanted: Mapping[str, str], recorded: Collection[str]) -> set[str]:
    """The recorded names that are only given rightly if it is known whose outputs they are.

    Several want such a name, or one does that an earlier run has named apart.
    """
    names = {key: safe_name(name) for key, name in wanted.items()}
    times = Counter(names.values())
    return {
        name
        for key, name in names.items()
        if name in recorded and (times[name] > 1 or _apart(key, name) in recorded)
    }


def _apart(key: str, name: str, times: int = 0) -> str:
    """A name for what collides with another; its own, whatever it collides with.

    `times`: how often that was taken too, by what has such a name from the start.
    """
    path = PurePosixPath(name)
    own = f"{key}\0{times}" if times else key
    mark = hashlib.sha256(own.encode(errors="surrogatepass")).hexdigest()[:12]
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
    safe = "/".join(parts)
    if len(safe.encode()) <= LONGEST_NAME:
        return safe
    mark = hashlib.sha256(safe.encode()).hexdigest()[:12]
    return f"{_short('_'.join(parts[:-1]), LONGEST_PART)}.{mark}/{parts[-1]}"


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
    return bool(_files(name) & (files | folders) or _above(name) & files)


def _files(name: str) -> set[str]:
    """What goes by a name, here or in another folder: the output, its record, its sheet."""
    return {_same(f"{name}{end}") for end in ("", ".json", ".png")}


def _above(name: str) -> set[str]:
    return {_same(str(parent)) for parent in PurePosixPath(name).parents}


def _same(name: str) -> str:
    """Equal for names that some file system holds for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
