"""A job's whole configuration: typed, validated once at the start, then only read.

`JobConfig.load(file, overrides)` is the one way in. Whatever is wrong with a file or an override is
a `ConfigError` that names the file, the key, and what is allowed there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from pipelines.config_file import ConfigError, apply_override, explain, read_yaml
from pipelines.config_types import Location, Section, absolute, ascending
from pipelines.data_config import DataConfig
from pipelines.inference_config import InferenceConfig


def _weights(source: str) -> str:
    return source if source == "default" or source.startswith("models:/") else absolute(source)


SearchRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ascending)]


def _alias(text: str) -> str:
    # MLflow keeps "latest" and version names such as v3 for itself.
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text) or re.fullmatch(r"latest|v\d+", text):
        raise ValueError(
            f"{text!r} cannot be an alias; use letters, digits, - and _, e.g. champion"
        )
    return text


class ModelSection(Section):
    """Which network, which weights it starts from; `attention`: other than theirs, to ablate."""

    size: Literal["tiny", "small", "base", "large"] = "base"
    """Of a network that starts from random weights; one that `init` names has a size already."""
    init: Annotated[str, AfterValidator(_weights)] | None = None
    """None: random weights; "default": the shipped ones; a model folder; or a models:/ URI."""
    attention: Literal["full", "inter-frame", "hole-region", "none"] | None = None


class LossesConfig(Section):
    """Weights of the reconstruction, feature and adversarial losses (eq. 7) and delta (eq. 8)."""

    lambda_r: NonNegativeFloat = 1.0
    lambda_f: NonNegativeFloat = 0.5
    lambda_g: NonNegativeFloat = 1.0
    delta: NonNegativeFloat = 100.0


class StageConfig(Section):
    """One training stage: Adam at `learning_rate`, times `decay` every `decay_every_epochs`."""

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 1
    """Clips per worker and step."""
    learning_rate: PositiveFloat = 1e-4
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    decay_every_epochs: PositiveInt = 10
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the weight average that is validated and kept; 0: no average."""
    gradient_clip: PositiveFloat = 10.0
    """Largest gradient norm."""
    max_bad_steps: PositiveInt = 20
    """Consecutive steps with a non-finite loss or gradient that are skipped before giving up."""
    mixed_precision: bool | None = None
    """bfloat16 autocast; None: on CUDA only."""
    compile: bool = False
    """Run the networks' convolutions through torch.compile; left out on a CPU."""
    log_every: PositiveInt = 10
    checkpoint_every: PositiveInt = 200
    validate_every: PositiveInt = 500
    validation_clips: PositiveInt = 4
    """Held-out clips, the same each time, that a validation scores."""


class InpainterStageConfig(StageConfig):
    """The inpainter's stage, the only one that tells targets from references."""

    targets: PositiveInt | None = None
    """Target frames per clip, each the others' reference; None: all frames of the clip."""
    reference_dropout: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of steps in which targets keep half of their references or none."""
    checkpointing: bool = False
    """Compute activations again for the backward pass instead of remembering them."""


class StagesConfig(Section):
    """The three stages in their order."""

    im2im: StageConfig = StageConfig()
    inpainter: InpainterStageConfig = InpainterStageConfig()
    temporal: StageConfig = StageConfig()


class ClusterConfig(Section):
    """What a stage takes of the cluster, and where results and checkpoints are kept."""

    workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 1
    use_gpu: Literal["auto", True, False] = "auto"
    """auto: GPUs if the cluster has enough of them for all workers."""
    restarts: NonNegativeInt = 5
    """Of a stage whose worker or node died, in a row, without a new checkpoint in between."""
    storage: Location = Field(default_factory=lambda: "runs")


class TrackingConfig(Section):
    """MLflow: None takes MLFLOW_TRACKING_URI, else sqlite in the cluster's storage folder."""

    uri: str | None = None
    experiment: str = "cssta"


class RegistryConfig(Section):
    """Under which name and alias the trained model is registered and served."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^/:.@%\"']+$")] = "cssta"
    alias: Annotated[str, AfterValidator(_alias)] = "champion"


class EvaluateConfig(Section):
    """Which videos are measured (None: the held-out ones), how many and how far into each."""

    videos: Location | None = None
    clips: PositiveInt = 20
    max_frames: PositiveInt = 100


class TuneRanges(Section):
    """Search interval of each tuned value; a missing one keeps its configured value."""

    lambda_r: SearchRange | None = (0.1, 10.0)
    lambda_f: SearchRange | None = (0.05, 5.0)
    lambda_g: SearchRange | None = (0.01, 2.0)
    delta: SearchRange | None = (1.0, 300.0)


class TuneConfig(Section):
    """Optuna's search over the loss weights."""

    trials: PositiveInt = 20
    parallel: PositiveInt = 2
    steps: PositiveInt = 200
    """Steps of a trial's training."""
    seeds: PositiveInt = 1
    """Trainings per trial, each with draws and clips of its own: the score is their mean."""
    clips: PositiveInt = 8
    """Held-out clips that a trial is scored on."""
    prune: bool = True
    """End trials whose score on the way is below the median of earlier ones at the same step."""
    score_every: PositiveInt | None = None
    """Steps between scores on the way; None: a quarter of `steps`."""
    startup_trials: PositiveInt = 5
    """Trials that must have finished before any is pruned."""
    storage: str | None = None
    """Optuna storage URL; None: sqlite in the cluster's storage folder."""
    study: str = "cssta"
    ranges: TuneRanges = TuneRanges()


class JobConfig(Section):
    """Everything a job is told."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "cssta"
    """Run name, also the folder under `cluster.storage`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    model: ModelSection = ModelSection()
    losses: LossesConfig = LossesConfig()
    stages: StagesConfig = StagesConfig()
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    tracking: TrackingConfig = TrackingConfig()
    registry: RegistryConfig = RegistryConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    inference: InferenceConfig = InferenceConfig()
    tune: TuneConfig = TuneConfig()

    @classmethod
    def load(cls, path: str | Path | None, overrides: list[str] | None = None) -> JobConfig:
        """Read a YAML file, apply `a.b=value` overrides (values in YAML), validate.

        None as the path: the overrides say everything, as when videos are only completed; the
        footage that is asked for all the same is then what `inference` names. Raises ConfigError
        naming the file, the key, and the allowed keys or values.
        """
        source = "command line" if path is None else str(path)
        try:
            content = {} if path is None else read_yaml(Path(path))
            for override in overrides or []:
                apply_override(content, override)
            if path is None:
                apply_override(content, f"data.videos={json.dumps(_footage(content))}")
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        if overrides and path is not None:
            source += f" with {', '.join(overrides)}"
        return cls.parse(content, source)

    @classmethod
    def parse(cls, content: dict[str, Any], source: str = "configuration") -> JobConfig:
        """Validate a nested dict; `source` is the name that errors give to where it came from."""
        try:
            # By way of JSON, where strict typing still takes a list for a pair and 1 for 1.0.
            return cls.model_validate_json(json.dumps(content, default=str))
        except ValidationError as error:
            problems = [explain(entry, cls) for entry in error.errors()]
            raise ConfigError(f"{source}: " + "; ".join(dict.fromkeys(problems))) from None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, such that `parse(to_dict())` gives an equal configuration."""
        return self.model_dump(mode="json")

    def flat(self) -> dict[str, Any]:
        """The same with dotted keys, for logging as parameters."""
        return _flatten(self.to_dict())


def _footage(content: dict[str, Any]) -> str:
    """`data.videos` of a configuration that was not read from a file."""
    for section, key in (("data", "videos"), ("inference", "videos"), ("inference", "manifest")):
        values = content.get(section)
        if isinstance(values, dict) and isinstance(values.get(key), str):
            return values[key]
    return "videos"


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        section = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{key}.") if section else {prefix + key: value}
    return flat
