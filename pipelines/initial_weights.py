"""Where training starts: random weights, or those of the model that `model.init` names."""

from __future__ import annotations

from dataclasses import replace

from cssta.checkpoint import load_model
from cssta.config import ModelConfig
from pipelines.actors import pack_model
from pipelines.config import JobConfig
from pipelines.registry import resolve


def initial_weights(
    cfg: JobConfig, tracking_uri: str | None
) -> tuple[ModelConfig, dict[str, bytes], str]:
    """Model configuration, starting weights by network name, and words for where they are from.

    For the driver: workers, which may reach neither its disk nor the registry, get the bytes.
    Raises RegistryError or CheckpointError if `model.init` cannot be used.
    """
    if cfg.model.init is None:
        return _with_attention(ModelConfig.preset(cfg.model.size), cfg), {}, "random"
    folder, version = resolve(cfg.model.init, tracking_uri)
    config = _with_attention(load_model(folder).config, cfg)
    files = pack_model(folder)
    suffix = ".safetensors"
    weights = {k.removesuffix(suffix): v for k, v in files.items() if k.endswith(suffix)}
    return config, weights, version


def _with_attention(config: ModelConfig, cfg: JobConfig) -> ModelConfig:
    return config if cfg.model.attention is None else replace(config, attention=cfg.model.attention)
