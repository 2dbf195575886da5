"""Model folders: safetensors weights beside a plain-text config. Nothing here unpickles.

config.yaml             the ModelConfig, a format number, and `temporal: false` where the temporal
                        network is better left out unless it is asked for
inpainter.safetensors   coarse and refinement stages
temporal.safetensors    temporal consistency network (optional)
im2im.safetensors       the auto-encoder, feature teacher for further training (optional)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.temporal import TemporalNetwork

FORMAT = 1
DEFAULT_MODEL = Path(__file__).parent / "weights"


class CheckpointError(ValueError):
    """A model folder cannot be used; the message names the file and the remedy."""


@dataclass
class Model:
    """The networks of one model folder; `temporal` and `im2im` may be absent.

    `use_temporal`: whether the temporal network runs where nothing else is said.
    """

    config: ModelConfig
    inpainter: InpaintingNetwork
    temporal: TemporalNetwork | None = None
    im2im: Im2Im | None = None
    use_temporal: bool = True


def save_model(
    folder: Path | str,
    config: ModelConfig,
    inpainter: InpaintingNetwork,
    temporal: TemporalNetwork | None = None,
    im2im: Im2Im | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write a model folder; `half` stores weights in half precision. Returns the folder.

    A network that is None has no file afterwards, whatever the folder held before.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = {"inpainter": inpainter, "temporal": temporal, "im2im": im2im}
    for name, network in networks.items():
        path = folder / f"{name}.safetensors"
        if network is None:
            path.unlink(missing_ok=True)
        else:
            save_network(path, network, half=half)
    write_config(folder, config)
    return folder


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write a model folder's config.yaml."""
    document = {"format": FORMAT, "model": config.to_dict()}
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def save_network(path: Path, network: nn.Module, *, half: bool = False) -> None:
    """Write one network's weights."""
    tensors = network.state_dict()
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_tensors(path, tensors)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors of any device and layout, readable by all (mode 0644)."""
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
    path.chmod(0o644)  # safetensors writes 0600


def load_model(folder: Path | str | None = None) -> Model:
    """Read a model folder (None: the default weights), on CPU, in float32, in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged, or belongs to another configuration.
    """
    folder = DEFAULT_MODEL if folder is None else Path(folder)
    config, use_temporal = _read_config(folder / "config.yaml")
    inpainter = load_network(folder / "inpainter.safetensors", lambda: InpaintingNetwork(config))
    model = Model(config, inpainter, use_temporal=use_temporal)
    if (folder / "temporal.safetensors").exists():
        path = folder / "temporal.safetensors"
        model.temporal = load_network(path, lambda: TemporalNetwork(config))
    if (folder / "im2im.safetensors").exists():
        model.im2im = load_network(folder / "im2im.safetensors", lambda: Im2Im(config))
    return model


def load_network(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Read one network's weights into what `build` makes; float32, eval mode."""
    tensors = load_tensors(path)
    network = build()
    try:
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights do not fit the config.yaml beside them ({error}); "
            f"keep both files of one save together"
        ) from error
    return network.eval().requires_grad_(False)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read one safetensors file, on CPU."""
    remedy = "train one with jobs/train_all.py or name another model folder"
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; {remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); restore it or {remedy}") from error


def _read_config(path: Path) -> tuple[ModelConfig, bool]:
    """The configuration, and whether the temporal network is to run."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; is {path.parent} a model folder?")
    try:
        document = yaml.safe_load(path.read_text())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"'format' must be {FORMAT}")
        use_temporal = document.get("temporal", True)
        if not isinstance(use_temporal, bool):
            raise ValueError(f"'temporal' must be true or false, not {use_temporal!r}")
        return ModelConfig.from_dict(document["model"]), use_temporal
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model configuration ({error})") from error


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, else the first GPU, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
