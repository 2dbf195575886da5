from __future__ import annotations

import pytest
import yaml

from cssta.config import PRESETS, ModelConfig, ModelConfigError


@pytest.mark.parametrize("size", PRESETS)
def test_a_preset_survives_plain_text(size):
    config = ModelConfig.preset(size)
    document = yaml.safe_load(yaml.safe_dump(config.to_dict()))
    assert ModelConfig.from_dict(document) == config


def test_sizes_grow():
    widths = [ModelConfig.preset(size).width for size in ("tiny", "small", "base", "large")]
    assert widths == sorted(set(widths))


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ModelConfigError, match=r"'huge'.*tiny, small, base, large"):
        ModelConfig.preset("huge")


def test_an_unknown_key_is_named():
    with pytest.raises(ModelConfigError, match=r"'depth'.*coarse_width"):
        ModelConfig.from_dict({"width": 8, "depth": 3})


@pytest.mark.parametrize(
    "key, value",
    [
        ("width", 3),
        ("width", 5),
        ("coarse_width", 8.0),
        ("temporal_width", "8"),
        ("discriminator_width", True),
        ("dilations", (0, 2)),
        ("attention_scale", 0),
        ("attention_scale", float("nan")),
        ("attention", "some"),
    ],
)
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(ModelConfigError, match=key):
        ModelConfig(**{key: value})
