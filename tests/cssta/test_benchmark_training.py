from __future__ import annotations

import json

import pytest

from cssta import benchmark_training


def test_recomputing_costs_a_part_of_a_forward_pass(tmp_path, capsys, monkeypatch):
    measured = benchmark_training.measure
    monkeypatch.setattr(benchmark_training, "alone", lambda module, case: measured(case))
    report = tmp_path / "rows.json"
    benchmark_training.main(
        ["--sizes-of-model", "tiny", "--frames", "2", "--crop", "32", "--json", str(report)]
    )
    plain, again = json.loads(report.read_text())["rows"]
    assert plain["checkpointing"] is False and again["checkpointing"] is True
    assert plain["gflops"] < again["gflops"] < 1.5 * plain["gflops"]
    assert 0 < 2 * plain["inference_gflops"] < plain["gflops"], "backward costs twice forward"
    assert plain["inference_gflops"] == again["inference_gflops"]
    assert capsys.readouterr().out.count("| tiny |") == 2


def test_an_unknown_size_is_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark_training.main(["--sizes-of-model", "huge"])
    assert "known: tiny, small, base, large" in capsys.readouterr().err
