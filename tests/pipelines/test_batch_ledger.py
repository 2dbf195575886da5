"""The ledger holds every video, every field, and null for what was not measured."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.batch_ledger import ledger_schema, write_ledger
from tests.pipelines.outcomes import batch


def test_every_field_of_every_video_is_found_again(tmp_path: Path):
    path = write_ledger(batch(), tmp_path / "new" / "ledger.parquet", {"model": "models:/cssta/3"})
    table = pq.read_table(path)
    rows = {row["name"]: row for row in table.to_pylist()}
    assert list(rows) == [outcome.name for outcome in batch()]
    held = rows["höhle <1> & #2.mp4"]
    assert held["status"] == "review" and "seam 4.00" in held["review"]
    assert (held["frames"], held["hole_frames"], held["quality_seam"]) == (10, 8, 4.0)
    assert held["psnr"] is None  # nan in the outcome: the truth was not known
    assert rows["poor.mp4"]["quality_self_test"] is None
    assert rows["text.mp4"]["reason"] == "unreadable" and rows["text.mp4"]["quality_seam"] is None
    assert table.schema.metadata[b"model"] == b"models:/cssta/3"
    assert [file.name for file in path.parent.iterdir()] == ["ledger.parquet"]


def test_a_ledger_of_nothing_has_all_columns(tmp_path: Path):
    table = pq.read_table(write_ledger([], tmp_path / "ledger.parquet"))
    assert table.num_rows == 0
    assert table.schema.names == ledger_schema().names
    assert {"name", "status", "reason", "frames", "seconds", "quality_seam"} <= {
        *table.schema.names
    }
