"""Where training starts: random weights, or those of the model that `model.init` names."""

from __future__ import annotations

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
        return ModelConfig.preset(cfg.model.size), {}, "random"
    folder, version = resolve(cfg.model.init, tracking_uri)
    config = load_model(folder).config
    files = pack_model(folder)
    suffix = ".safetensors"
    weights = {k.removesuffix(suffix): v for k, v in files.items() if k.endswith(suffix)}
    return config, weights, version
