"""YAML configuration files, the `a.b=value` overrides of the command line, and words for what is
wrong in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel


class ConfigError(ValueError):
    """A configuration that cannot be used: names the file, the key and what is allowed."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 (no dot) as a string; here it is the number it looks like.

    And of a key written twice it silently takes the last; here that is a ConfigError.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            earlier = first.setdefault((key.tag, key.value), key)
            if earlier is not key:
                lines = f"lines {earlier.start_mark.line + 1} and {key.start_mark.line + 1}"
                raise ConfigError(f"{key.value}: is given twice ({lines}); keep one of them")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError("no such file; give a YAML file such as jobs/configs/demo.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError("must hold keys and values, such as data: {videos: folder}")
    return content


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in place, the value read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r} must be written key=value, e.g. seed=1")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"the value of override {override!r} is not valid YAML") from None
    *sections, last = key.strip().split(".")
    for section in sections:
        if content.get(section) is None:
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise ConfigError(f"override {override!r}: {section} holds no further keys")
    content[last] = value


def explain(entry: Any, root: type[BaseModel]) -> str:
    """One validation problem as `key: what is wrong; what is allowed`."""
    # Union members add a part of their own ("tuple[...]") to the location: not a key, so not shown.
    parts = [part for part in entry["loc"] if isinstance(part, int) or part.isidentifier()]
    parts = parts or list(entry["loc"])
    key = ".".join(str(part) for part in parts) or "(top level)"
    allowed = ", ".join(_section_at(root, parts[:-1]).model_fields)
    if entry["type"] == "extra_forbidden":
        return f"{'.'.join(map(str, entry['loc']))}: unknown key; allowed keys: {allowed}"
    if entry["type"] == "missing":
        return f"{key}: is missing and has no default"
    if entry["type"] == "model_type":
        allowed = ", ".join(_section_at(root, parts).model_fields)
        return f"{key}: must be a section; allowed keys: {allowed}"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":
        return f"{key}: {message}"
    refused = f"{key}: {json.dumps(entry['input'], default=str)} is not allowed"
    if entry["type"] == "literal_error":
        return f"{refused}; allowed: {entry['ctx']['expected']}"
    return f"{refused}; {message[0].lower()}{message[1:]}"


def _section_at(root: type[BaseModel], parts: list[Any]) -> type[BaseModel]:
    section = root
    for part in parts:
        field = section.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            break
        section = field.annotation
    return section
