"""A model folder out of the stages' results, in the form that `cssta.checkpoint` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cssta.checkpoint import load_model, write_config
from cssta.config import ModelConfig


def write_model_folder(folder: Path, config: ModelConfig, weights: Mapping[str, bytes]) -> Path:
    """Write config and safetensors by network name, and see that they load. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in weights.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    write_config(folder, config)
    load_model(folder)
    return folder
