"""Manifests as people write them: options in columns or in one, and rows that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipelines.batch_manifest import read_manifest
from pipelines.batch_masks import BatchError
from pipelines.batch_plan import plan_batch
from tests.pipelines.test_batch_plan import MODEL, make_config, touch

OPTIONS = {"boxes": "1,2,30,40@0-2", "dilate": 4, "invert": True, "crf": 20.5, "codec": None}


def plan(tmp_path: Path, manifest: Path):
    touch(*(tmp_path / f"in/{name}.mp4" for name in "abcd"))
    return plan_batch(make_config(tmp_path, manifest=str(manifest)), MODEL)


def as_csv(path: Path) -> Path:
    text = json.dumps(OPTIONS).replace('"', '""')
    path.write_text(f'video,options,feather\na.mp4,"{text}",2\nb.mp4,,3\n')
    return path


def as_lines(path: Path) -> Path:
    rows = [{"video": "a.mp4", "options": OPTIONS, "feather": 2},
            {"video": "b.mp4", "feather": 3, "options": {}}]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def as_parquet(path: Path) -> Path:
    rows = {"video": ["a.mp4", "b.mp4"], "options": [OPTIONS, None], "feather": [2, 3]}
    pyarrow.parquet.write_table(pa.table(rows), path)
    return path


def as_texts_in_parquet(path: Path) -> Path:
    rows = {"video": ["a.mp4", "b.mp4"], "options": [json.dumps(OPTIONS), ""], "feather": [2, 3]}
    pyarrow.parquet.write_table(pa.table(rows), path)
    return path


def as_map(path: Path) -> Path:
    pairs = [(key, str(value)) for key, value in OPTIONS.items() if value is not None]
    column = pa.array([pairs, None], pa.map_(pa.string(), pa.string()))
    rows = {"video": pa.array(["a.mp4", "b.mp4"]), "options": column, "feather": pa.array([2, 3])}
    pyarrow.parquet.write_table(pa.table(rows), path)
    return path


@pytest.mark.parametrize("write", [as_csv, as_lines, as_parquet, as_texts_in_parquet, as_map])
def test_options_in_a_column_of_their_own(tmp_path: Path, write):
    suffix = {as_csv: ".csv", as_lines: ".jsonl"}.get(write, ".parquet")
    found = plan(tmp_path, write(tmp_path / f"list{suffix}"))
    (first,) = found.tasks
    wanted = {**OPTIONS, "feather": 2}
    assert {key: first.options[key] for key in wanted} == wanted
    (second,) = found.settled
    assert second.reason == "mask-missing"  # (as the other names a box)


def test_rows_that_cannot_be_used_end_nothing_but_themselves(tmp_path: Path):
    lines = [
        b'{"video": "a.mp4", "boxes": "1,2,3,4", "output": "\xe2\x80\xa8.mp4"}',
        b'{"video": "b.mp4", "boxes": ',
        b'["b.mp4"]',
        b'{"video": "\xe9.mp4"}',
        b"",
        b'{"video": "b.mp4", "output": "x.mp4", "boxes": "1,2,3,4"}',
        b'{"video": "c.mp4", "output": "x.mp4", "boxes": "1,2,3,4"}',
        b'{"video": "d.mp4", "output": "x.mp4 (row 6)", "boxes": "1,2,3,4"}',
        b'{"video": "c.mp4", "options": [1]}',
        b'{"video": "c.mp4", "options": "{"}',
        b'{"video": "c.mp4", "options": {"dilate": 1}, "dilate": 2}',
        b'{"video": "c.mp4", "options": {"colour": "red"}}',
        b'{"video": "file://films/c.mp4"}',
        b'{"video": "c.mp4", "options": {"dilate": "\\udce9"}}',
        b"[" * 100_000,
    ]
    (tmp_path / "list.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    found = plan(tmp_path, tmp_path / "list.jsonl")
    assert [task.place for task in found.tasks] == ["\u2028.mp4", "x.mp4 (row 6).mp4"]
    assert {outcome.reason for outcome in found.settled} == {"bad-row"}
    rows = [outcome.message.rpartition("; see row ")[2] for outcome in found.settled]
    assert rows == [str(n) for n in range(2, 15) if n != 7]
    words = ("no JSON object", "no JSON object", "utf-8", "several rows", "several rows",
             "options: ", "options: ", "dilate is a column and in options", "unknown column colour",
             "names the machine", "dilate: ", "no JSON object")  # fmt: skip
    for outcome, expected in zip(found.settled, words, strict=True):
        assert expected in outcome.message, outcome.message
        json.dumps(vars(outcome), ensure_ascii=False).encode()
    assert len({outcome.name for outcome in found.settled}) == 12
    assert len({task.place for task in found.all_tasks.values()}) == 14


def test_a_row_with_more_fields_than_columns_is_one_bad_row(tmp_path: Path):
    (tmp_path / "list.csv").write_text('video,boxes\na.mp4,"1,2,3,4"\nb.mp4,1,2,3,4\n')
    found = plan(tmp_path, tmp_path / "list.csv")
    assert [task.name for task in found.tasks] == ["a.mp4"]
    assert "more fields than there are columns; see row 2" in found.settled[0].message


def test_no_hole_is_drawn_where_a_row_that_cannot_be_read_may_name_one(tmp_path: Path):
    (tmp_path / "list.jsonl").write_text('{"video": "a.mp4"}\n{"video": "b.mp4", "mask": \n')
    found = plan(tmp_path, tmp_path / "list.jsonl")
    assert not found.tasks
    assert [outcome.reason for outcome in found.settled] == ["mask-missing", "bad-row"]


def test_a_list_of_nothing_but_bad_rows_is_an_error(tmp_path: Path):
    (tmp_path / "list.jsonl").write_text('{"video": \n["a.mp4"]\n')
    with pytest.raises(BatchError, match=r"list\.jsonl: .*no JSON object.*see row 1"):
        plan(tmp_path, tmp_path / "list.jsonl")
    (tmp_path / "list.csv").write_text('video\n"a.mp4\n')
    with pytest.raises(BatchError, match=r"list\.csv: cannot be read"):
        read_manifest(str(tmp_path / "list.csv"))
