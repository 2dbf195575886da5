"""The ledger of a batch: one row per video in a Parquet file, for whoever counts or bills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cssta.quality import FIGURES
from pipelines.batch_record import VideoOutcome

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


def ledger_schema() -> pa.Schema:
    """A column for each plain field of `VideoOutcome`, and one for each quality figure."""
    plain = [
        pa.field(field.name, _TYPES[str(field.type)])
        for field in fields(VideoOutcome)
        if field.name != "quality"
    ]
    return pa.schema([*plain, *(pa.field(f"quality_{key}", pa.float64()) for key in FIGURES)])


def write_ledger(
    outcomes: Sequence[VideoOutcome], path: Path, metadata: dict[str, str] | None = None
) -> Path:
    """Write the ledger, whole or not at all; what was not measured is null.

    `metadata`: of the file as a whole, such as the model; found again in the schema's metadata.
    """
    schema = ledger_schema().with_metadata(metadata or None)
    table = pa.Table.from_pylist([_row(outcome) for outcome in outcomes], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _row(outcome: VideoOutcome) -> dict[str, Any]:
    values = dict(vars(outcome))
    values |= {f"quality_{key}": value for key, value in values.pop("quality").items()}
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in values.items()
    }
