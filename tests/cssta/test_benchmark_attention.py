from __future__ import annotations

import json

from cssta import benchmark_attention


def test_a_row_for_every_path_and_number_of_references(tmp_path, capsys, monkeypatch):
    measured = benchmark_attention.measure
    monkeypatch.setattr(benchmark_attention, "alone", lambda module, case: measured(case))
    report = tmp_path / "rows.json"
    benchmark_attention.main(
        ["--size", "64x48", "--references", "2", "5", "--channels", "4", "--json", str(report)]
    )
    rows = json.loads(report.read_text())["rows"]
    assert [(row["path"], row["references"]) for row in rows] == [
        (path, count) for path in benchmark_attention.PATHS for count in (2, 5)
    ]
    assert all(row["seconds"] > 0 and row["peak_mib"] > row["rise_mib"] for row in rows)
    assert capsys.readouterr().out.count("| training |") == 2
