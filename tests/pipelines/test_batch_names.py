"""Whatever a listing or a manifest says, outputs stay in their folder and apart from each other."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.batch_names import (
    RESERVED,
    assign_names,
    contested,
    output_names,
    safe_name,
)

parts = st.one_of(
    st.sampled_from(["..", ".", "", "_work", "_Review", "a.mp4", "a.mp4.json", "A.MP4", " "]),
    st.text(st.sampled_from("abAB .#%é\u0301\n\x00/\\"), max_size=4),
    st.text(max_size=5),
    st.just("x" * 300),
    st.just("é" * 200),
    st.just("/".join(["y" * 150] * 7)),
    st.just("a.mp4.png"),
)
suffixes = st.sampled_from(["", ".mp4", ".MP4", ".mov", ".mov.mp4", ".avi", ".webm"])
names = st.builds(
    lambda path, suffix: "/".join(path) + suffix, st.lists(parts, max_size=4), suffixes
)


def same(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@settings(deadline=None)  # (machines are busy now and then)
@given(st.sets(names, max_size=12))
def test_names_never_collide_nor_leave_their_folder(sources: set[str]):
    outputs = output_names(sources)
    assert set(outputs) == sources
    files = {same(output) for output in outputs.values()}
    assert len(files) == len(sources)
    beside = {f"{file}{end}" for file in files for end in (".json", ".png")}  # records and sheets
    assert not files & beside
    for output in outputs.values():
        path = PurePosixPath(output)
        assert not path.is_absolute() and not {"..", ".", ""} & set(output.split("/"))
        assert os.path.normpath(f"/out/{output}") == f"/out/{output}"
        assert path.suffix.lower() in (".mp4", ".mov", ".mkv", ".webm", ".m4v")
        assert same(path.parts[0]) not in RESERVED
        assert all(len(part.encode()) <= 200 for part in path.parts)
        above = {same(str(parent)) for parent in path.parents}
        assert not above & (files | beside), "a file where another needs a folder"
        assert len(output.encode()) <= 620, "no room for the folder's own name in a key of S3"
    assert output_names(sorted(sources, reverse=True)) == outputs


@settings(deadline=None)  # (machines are busy now and then)
@given(st.sets(names, max_size=6))
def test_what_is_harmless_stays(sources: set[str]):
    for source, output in output_names(sources).items():
        if safe_name(source) == source and len({same(n) for n in sources}) == len(sources) == 1:
            assert output == source


def test_names_can_be_had_in_a_real_folder(tmp_path: Path):
    wanted = ["a b.mp4", "a#b%20.mov", "übung/日本.mkv", "../../x.mp4", "/etc/x.mp4", "a.mp4/b.mp4",
              "a.mp4", "A.mp4", "x" * 400 + ".mp4", "_work/a.mp4", "walk", "b.avi"]  # fmt: skip
    outputs = assign_names({name: name for name in wanted})
    for name in ("a b.mp4", "a#b%20.mov", "übung/日本.mkv"):
        assert outputs[name] == name
    assert outputs["walk"] == "walk.mp4" and outputs["b.avi"] == "b.avi.mkv"
    for output in outputs.values():
        path = tmp_path / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
        Path(f"{path}.json").touch(exist_ok=False)
    assert len([path for path in tmp_path.rglob("*.json")]) == len(wanted)


def test_endings_that_are_read_but_not_written_become_matroska():
    for suffix in (".mpg", ".ts", ".MXF", ".flv", ".wmv"):
        assert output_names([f"a{suffix}"]) == {f"a{suffix}": f"a{suffix}.mkv"}


plain = st.lists(
    st.sampled_from(["a", "A", "b.mp4", "B.mp4", "é", "e\u0301"]), min_size=1, max_size=3
)
plain_names = st.sets(st.builds(lambda path: "/".join(path) + ".mp4", plain), max_size=8)


@settings(deadline=None)  # (machines are busy now and then)
@given(plain_names, plain_names)
def test_what_is_recorded_keeps_its_name_whatever_comes_or_goes(before: set[str], later: set[str]):
    first = output_names(before)
    recorded = set(first.values())
    second = assign_names({name: name for name in before | later}, recorded)
    assert {name: second[name] for name in before} == first
    assert len({same(output) for output in second.values()}) == len(before | later)
    left = {name: name for name in before & later}
    assert assign_names(left, recorded) == {name: first[name] for name in left}


# Names that other names become: folders of pictures, and endings that are not written.
becoming = [
    "walk",
    "walk.mp4",
    "WALK.mp4",
    "b.avi",
    "b.avi.mkv",
    "walk.mp4/b.avi",
    "walk.mp4.png/c.mp4",
]
becoming_names = st.sets(st.sampled_from(becoming))


@settings(deadline=None)  # (machines are busy now and then)
@given(becoming_names, becoming_names, becoming_names)
def test_no_name_of_a_finished_output_is_taken_over(
    before: set[str], later: set[str], gone: set[str]
):
    first = output_names(before)
    owners = {place: name for name, place in first.items()}
    wanted = {name: name for name in (before | later) - gone}
    # (Only those are looked up.)
    known = {place: owners[place] for place in contested(wanted, set(owners))}
    second = assign_names(wanted, set(owners), known)
    assert {name: second[name] for name in before - gone} == {n: first[n] for n in before - gone}
    assert len({same(output) for output in second.values()}) == len(wanted)


def test_a_name_that_is_what_another_would_be_named_apart_is_no_twos():
    apart = output_names(["walk", "walk.mp4"])["walk"]
    outputs = output_names(["walk", "walk.mp4", apart])
    assert len(set(outputs.values())) == 3 and outputs[apart] == apart


def test_a_contact_sheet_is_where_no_other_needs_a_folder():
    outputs = output_names(["a.mp4", "a.mp4.png/b.mp4"])
    assert outputs["a.mp4"] == "a.mp4" and "/" not in outputs["a.mp4.png/b.mp4"]


def test_names_fit_into_keys_of_s3_whole():
    long = "/".join(["x" * 150] * 6)
    outputs = output_names([f"{long}/a.mp4", f"{long}/b.mp4", f"{long}x/a.mp4"])
    assert len(set(outputs.values())) == 3
    for name, output in outputs.items():
        assert len(f"bucket/_quarantine/{output}.json".encode()) < 700
        assert PurePosixPath(output).name == PurePosixPath(name).name
