"""Loss weights that a search found, as a file that `jobs/train_all.py --losses` takes."""

from __future__ import annotations

from collections.abc import Mapping

import yaml
from pydantic import ValidationError

from pipelines import storage
from pipelines.config import ConfigError, LossesConfig
from pipelines.retries import with_retries


def write_losses(
    uri: str, losses: Mapping[str, float], head: str, s3_endpoint: str | None = None
) -> None:
    """Write a `losses:` section under a line of comment, locally or to s3. Raises StorageError."""
    content = f"# {head}\n" + yaml.safe_dump({"losses": dict(losses)})
    with_retries(lambda: storage.write_bytes(content.encode(), uri, s3_endpoint))


def read_losses(uri: str, s3_endpoint: str | None = None) -> dict[str, float]:
    """The weights in such a file, by name.

    Raises StorageError if it cannot be read, ConfigError if it holds anything else.
    """
    text = with_retries(lambda: storage.read_bytes(uri, s3_endpoint))
    try:
        losses = yaml.safe_load(text)["losses"]
        LossesConfig.model_validate(losses)
        # (Of a part of them nobody could say what the others were when they were found.)
        if missing := [name for name in LossesConfig.model_fields if name not in losses]:
            raise LookupError(f"{', '.join(missing)} missing")
    except (yaml.YAMLError, LookupError, TypeError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        names = ", ".join(LossesConfig.model_fields)
        raise ConfigError(
            f"{uri}: is no file of loss weights ({reason}); it must have a section `losses:` "
            f"with {names}, as jobs/tune.py writes it"
        ) from error
    return losses
