from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest
import torch
import yaml

from cssta.checkpoint import (
    CheckpointError,
    load_model,
    pick_device,
    save_model,
)
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.temporal import TemporalNetwork

CONFIG = ModelConfig(
    width=6, coarse_width=4, dilations=(2,), temporal_width=4, attention_scale=17.0
)
NETWORKS = ("inpainter", "temporal", "im2im")


@pytest.fixture
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    made = (InpaintingNetwork(CONFIG), TemporalNetwork(CONFIG), Im2Im(CONFIG))
    return dict(zip(NETWORKS, made, strict=True))


@pytest.fixture
def folder(tmp_path, networks) -> Path:
    return save_model(tmp_path / "new" / "model", CONFIG, **networks)


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(tmp_path, networks, half):
    model = load_model(save_model(tmp_path / "model", CONFIG, **networks, half=half))
    assert model.config == CONFIG
    for name, network in networks.items():
        loaded = getattr(model, name)
        assert not loaded.training
        for key, value in network.state_dict().items():
            got = loaded.state_dict()[key]
            assert got.dtype == torch.float32
            assert torch.equal(got, value.half().float() if half else value), key
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_everybody_may_read_a_model(folder):
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444, path.name
    assert stat.S_IMODE((folder / "im2im.safetensors").stat().st_mode) == 0o644


def test_half_precision_is_half_the_size(folder, networks, tmp_path):
    half = save_model(tmp_path / "half", CONFIG, **networks, half=True)
    sizes = [(f / "inpainter.safetensors").stat().st_size for f in (folder, half)]
    assert sizes[1] < 0.7 * sizes[0]


def test_gpu_layouts_are_saved_as_they_are(tmp_path, networks):
    network = networks["inpainter"].to(memory_format=torch.channels_last)
    loaded = load_model(save_model(tmp_path, CONFIG, network)).inpainter
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_only_the_inpainter_must_be_there(tmp_path, networks):
    model = load_model(save_model(tmp_path, CONFIG, networks["inpainter"]))
    assert model.temporal is None and model.im2im is None


def test_a_model_says_whether_its_temporal_network_should_run(folder):
    assert load_model(folder).use_temporal
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(text + "temporal: false\n")
    model = load_model(folder)
    assert model.temporal is not None and not model.use_temporal
    config.write_text(text + "temporal: perhaps\n")
    with pytest.raises(CheckpointError, match="'temporal' must be true or false"):
        load_model(folder)


def test_saving_again_leaves_nothing_of_the_model_before(folder, networks):
    model = load_model(save_model(folder, CONFIG, networks["inpainter"]))
    assert model.temporal is None and model.im2im is None


def test_config_is_plain_text(folder):
    document = yaml.safe_load((folder / "config.yaml").read_text())
    assert document["model"]["dilations"] == [2]
    assert document["model"]["attention_scale"] == 17.0


@pytest.mark.parametrize("name", ["config.yaml", "inpainter.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_model(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.*is .* a model folder\?"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_damaged_weights_are_named(folder, name, damage):
    path = folder / f"{name}.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"\xff" * 64}[damage])
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors.*damaged"):
        load_model(folder)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_unopened(folder, name, write):
    path = folder / f"{name}.safetensors"
    with open(path, "wb") as file:
        write({"weights": Bomb()}, file)
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_another_shape_are_named(folder, name):
    config = ModelConfig(width=8, coarse_width=4, dilations=(2,), temporal_width=6)
    document = {"format": 1, "model": config.to_dict()}
    if name != "inpainter":  # let the first network fit, so that the other is reached
        other = save_model(folder.parent / "other", config, InpaintingNetwork(config))
        (other / "inpainter.safetensors").replace(folder / "inpainter.safetensors")
        if name == "im2im":
            (folder / "temporal.safetensors").unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors.*do not fit"):
        load_model(folder)


MODEL = "format: 1\nmodel: "


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"format: 2\nmodel: {}",
        b"format: 1",
        b"- format\n- 1",
        b"format: [1",
        b"\x80\x81\xff",
        f"{MODEL}null".encode(),
        f"{MODEL}[width]".encode(),
        f"{MODEL}{{width: wide}}".encode(),
        f"{MODEL}{{depth: 3}}".encode(),
        f"{MODEL}{{dilations: [two]}}".encode(),
        f"{MODEL}{{dilations: 2}}".encode(),
        f"{MODEL}{{attention_scale: hot}}".encode(),
        b"format: 1\nmodel: !!python/object/apply:os._exit [3]",
    ],
)
def test_a_config_that_is_none_is_named(folder, text):
    (folder / "config.yaml").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load_model(folder)


def test_devices():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    assert pick_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
