"""The model's shape: everything needed to rebuild the networks before their weights are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

# What of the CSSTA layer there is; all but the first are for ablations (`jobs/ablate.py`).
ATTENTIONS = ("full", "inter-frame", "hole-region", "none")


class ModelConfigError(ValueError):
    """A model configuration has an unknown key, an unknown preset or a value out of range."""


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of all networks.

    Attributes:
        width: channels at 1/2 scale in the refinement stage; features at 1/4 scale have twice that.
        coarse_width: the same for the coarse stage (stage 1), which only has to guide stage 2.
        dilations: dilation of each residual gated convolution at 1/4 scale, widening the
            receptive field (Sec. 2.4).
        temporal_width: channels at 1/2 scale in the temporal consistency network.
        discriminator_width: channels of the discriminator's first layer.
        attention_scale: initial softmax temperature of the CSSTA layer (learned from there). A true
            match has cosine 1; among 24,000 keys of cosine 0.4 it wins 99 % of the weight at 24.
        attention: which parts of the CSSTA layer there are: both ("full"), eq. 1 alone
            ("inter-frame"), eq. 2 alone ("hole-region"), or no layer, its input passing ("none").
    """

    width: int = 48
    coarse_width: int = 32
    dilations: tuple[int, ...] = (2, 4, 8)
    temporal_width: int = 16
    discriminator_width: int = 32
    attention_scale: float = 24.0
    attention: str = "full"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(int(d) for d in self.dilations))
        for key in ("width", "coarse_width", "temporal_width", "discriminator_width"):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 4 or value % 2:
                raise ModelConfigError(f"{key} must be an even whole number >= 4, not {value!r}")
        if any(d < 1 for d in self.dilations):
            raise ModelConfigError(f"dilations must all be >= 1, not {self.dilations}")
        if not self.attention_scale > 0:
            raise ModelConfigError(f"attention_scale must be > 0, not {self.attention_scale!r}")
        if self.attention not in ATTENTIONS:
            raise ModelConfigError(
                f"attention must be one of {', '.join(ATTENTIONS)}, not {self.attention!r}"
            )

    @classmethod
    def preset(cls, size: str) -> ModelConfig:
        """The configuration called `size`; see `PRESETS` for the names."""
        try:
            return PRESETS[size]
        except KeyError:
            raise ModelConfigError(f"no model size {size!r}; known: {', '.join(PRESETS)}") from None

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        """Rebuild from `to_dict`; raises `ModelConfigError` on a key that is not a field."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelConfigError(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict:
        """Plain values only, for YAML."""
        return {**asdict(self), "dilations": list(self.dilations)}


PRESETS = {
    "tiny": ModelConfig(
        width=12, coarse_width=8, dilations=(2, 4), temporal_width=8, discriminator_width=8
    ),
    "small": ModelConfig(width=32, coarse_width=16, temporal_width=12, discriminator_width=24),
    "base": ModelConfig(),
    "large": ModelConfig(
        width=64,
        coarse_width=48,
        dilations=(2, 4, 8, 16),
        temporal_width=24,
        discriminator_width=48,
    ),
}
