"""YAML files and overrides become plain dicts, or an error says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config_file import ConfigError, apply_override, read_yaml


def test_numbers_without_a_dot_are_numbers(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text("{a: 1e-4, b: 2E3, c: -1.5e+2, d: 1e, e: e4, f: 12, g: 0x1e3}")
    assert read_yaml(path) == {
        "a": 1e-4, "b": 2e3, "c": -150.0, "d": "1e", "e": "e4", "f": 12, "g": 0x1E3
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "- 1", "just text", "a: [", "a: 1: 2", "a: \x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_yaml(path)


@pytest.mark.parametrize("text", ["data: {}\nseed: 1\ndata: {}", "a: 1\nb: {data: 1,\n\n data: 2}"])
def test_a_key_given_twice_is_named_with_its_lines(tmp_path: Path, text: str):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^data: is given twice \(lines [12] and [34]\)"):
        read_yaml(path)
    path.write_text("a: {x: 1}\nb: {x: 1}")  # one name in two sections is no such thing
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 1}}
    with pytest.raises(ConfigError, match="x: is given twice"):
        apply_override({}, "a={x: 1, x: 2}")


def test_anchors_and_merged_keys_still_work(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text("a: &one {x: 1, y: 2}\nb: {<<: *one, y: 3}")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_overrides_create_sections_and_replace_values():
    content = {"a": {"b": 1}, "c": None}
    apply_override(content, "a.b=2")
    apply_override(content, "c.d.e=[1, 2]")
    apply_override(content, "f=x=y")
    assert content == {"a": {"b": 2}, "c": {"d": {"e": [1, 2]}}, "f": "x=y"}


@pytest.mark.parametrize("override", ["a", "=1", "a.b.c=1", "a=[1"])
def test_an_override_that_cannot_be_applied_is_named(override: str):
    with pytest.raises(ConfigError, match="override"):
        apply_override({"a": {"b": 1}}, override)
