"""Names that a command line gives: whose they are, and that no two are alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssta.evaluation.choice import (
    ChoiceError,
    check_distinct,
    check_folders,
    choose_methods,
    named,
    split_name,
)


def test_names_of_folders(tmp_path: Path):
    folder = tmp_path / "lr=1" / "m"
    folder.mkdir(parents=True)
    assert named(["a/out/", "ours=b/out", "s3://bucket/x=1/theirs"]) == [
        ("out", "a/out/"),
        ("ours", "b/out"),
        ("theirs", "s3://bucket/x=1/theirs"),
    ]
    assert split_name(str(folder)) == ("", str(folder))
    assert named([str(folder), f"it={folder}"]) == [("m", str(folder)), ("it", str(folder))]
    assert named(["it=s3://bucket/x"]) == [("it", "s3://bucket/x")]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([("out", "a/out"), ("Out", "b/Out")], "'Out' is called twice; use NAME=FOLDER"),
        ([("CSSTA", "results/CSSTA")], "'CSSTA' is a method's name; use NAME=FOLDER"),
        ([("", ".")], "no name of its own"),
    ],
)
def test_folders_that_could_be_taken_for_another(folders, words: str):
    with pytest.raises(ChoiceError, match=words):
        check_folders(folders)
    check_folders([("a", "x"), ("b", "x")])


def test_methods_are_named_once():
    with pytest.raises(ChoiceError, match="'telea' is called twice"):
        choose_methods("telea,flow,telea", None)
    with pytest.raises(ChoiceError, match="no method 'gated'"):
        choose_methods("gated", None)
    with pytest.raises(ChoiceError, match="nothing to score"):
        choose_methods(" , ", None)
    assert choose_methods(" , ", None, results=True) == choose_methods(None, None, True) == []
    with pytest.raises(ChoiceError, match="'A' is called twice"):
        check_distinct(["a", "A"])
