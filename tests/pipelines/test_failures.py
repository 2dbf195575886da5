"""Bad files are counted once each, and named when there are too many."""

from __future__ import annotations

import logging

import psutil
import pytest

from pipelines.failures import (
    ATTEMPTS,
    CRASHED,
    MASK,
    Failures,
    TooManyFailuresError,
    _FailureLog,
    _found_on,
    check_failures,
    kind_of,
    most_failures,
)
from pipelines.manifest import Rejected


def bad(name: str, reason: str = "unreadable") -> Rejected:
    return Rejected(f"/v/{name}", reason, f"/v/{name}: cannot be read")


@pytest.mark.parametrize(
    ("configured", "files", "limit"),
    [(None, 9, None), (3, 9, 3), (0, 9, 0), (0.5, 9, 4), (0.5, 1, 0), (0.01, 50, 0)],
)
def test_the_limit_is_a_number_or_a_share(configured, files, limit):
    assert most_failures(configured, files) == limit


def test_a_file_counts_once_whatever_is_wrong_with_it():
    failures = [bad("a"), bad("a", "storage"), bad("b")]
    check_failures(failures, 2)
    check_failures(failures, None)
    with pytest.raises(TooManyFailuresError) as caught:
        check_failures(failures, 1)
    assert str(caught.value) == (
        "2 files failed, and data.max_failures allows 1: /v/a: cannot be read; "
        "/v/b: cannot be read. Mend or remove them, or raise data.max_failures"
    )


def test_a_long_list_is_cut():
    with pytest.raises(TooManyFailuresError, match=r"^9 files .*/v/4.*read; and 4 more\. Mend"):
        check_failures([bad(str(number)) for number in range(9)], 0)


def test_what_failed_is_a_file_a_picture_or_a_mask_sequence():
    kinds = [kind_of(one) for one in (bad("a.mp4"), bad("b"), bad("c.JPG"), bad("d", MASK))]
    assert kinds == ["files", "files", "pictures", "mask sequences"]


@pytest.mark.cluster
def test_pictures_and_masks_count_apart_where_they_have_limits(ray_cluster):
    failures = Failures(limit=2, known=[bad("known")])
    apart = failures.counting_apart(pictures=3, masks=0)
    for number in range(3):
        apart.report(bad(f"{number}.jpg"))
    apart.report(bad("a.mp4"))
    with pytest.raises(TooManyFailuresError, match=r"^1 mask sequences failed.* allows 0: /v/m:"):
        apart.report(bad("m", MASK))
    with pytest.raises(TooManyFailuresError, match=r"^4 pictures failed"):
        apart.report(bad("3.jpg"))
    with pytest.raises(TooManyFailuresError, match=r"^3 files failed"):
        failures.counting_apart(pictures=None, masks=None).report(bad("b.mp4"))
    # one list, whoever reports; without limits of their own all are files
    assert len(failures.list()) == 7 and failures.list() == apart.list()
    with pytest.raises(TooManyFailuresError, match=r"^8 files failed"):
        failures.check()


@pytest.mark.cluster
def test_a_job_goes_on_when_what_holds_the_failures_is_killed(ray_cluster, caplog):
    failures = Failures(limit=5)
    failures.report(bad("a"))
    assert failures.list() == [bad("a")]
    holder = psutil.Process(ray_cluster.get(failures._log.pid.remote()))
    holder.kill()
    holder.wait(10)

    def decode(failures: Failures) -> str:
        with failures.attempt("0/0", "/v/b"):
            failures.report(bad("b"))
            return "decoded"

    assert ray_cluster.get(ray_cluster.remote(num_cpus=0)(decode).remote(failures)) == "decoded"
    with caplog.at_level(logging.WARNING, "pipelines.failures"):
        assert failures.list() == failures.list() == [bad("a")]  # what was known last
        failures.check()
    # (Ray's own threads log as well.)
    assert [record.name for record in caplog.records].count("pipelines.failures") == 1


def test_only_what_the_file_ended_counts_against_it():
    log = _FailureLog()
    assert log.begin("0", "/v/a", "node") == (0, 0, None)
    for number in range(1, 4):
        assert log.begin("0", "/v/a", "node") == (0, number - 1, "node")
        assert log.died("0", "/v/a", False) == (0, number)  # killed, nobody knows why
    log.begin("0", "/v/a", "other")
    assert log.died("0", "/v/a", None) == (0, 3)  # with its node
    assert log.begin("0", "/v/a", "node")[2] == "other"
    assert log.died("0", "/v/a", True) == (1, 3)
    log.end("0", "/v/a")
    assert log.begin("0", "/v/a", "node") == (0, 0, None)
    log.add(bad("a", CRASHED))
    assert log.begin("2", "/v/a", "node") == (ATTEMPTS, 0, None)


@pytest.mark.cluster
def test_a_node_that_is_gone_has_nothing_to_tell(ray_cluster):
    here = ray_cluster.get_runtime_context().get_node_id()
    assert _found_on(here, "nothing") == ""
    assert _found_on("0" * len(here), "nothing") is None
