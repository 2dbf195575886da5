"""Two drivers never work on one output; what a dead one held is taken over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import batch_lease
from pipelines.batch_lease import Lease, LeaseError, check_held
from pipelines.storage import StorageError, delete, exists, join, read_bytes, write_bytes

HOLDS = """
import sys, time
from pipelines.batch_lease import Lease
with Lease(sys.argv[1], sys.argv[2] or None, beat=0.1):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", "s3"])
def output(request, tmp_path: Path) -> tuple[str, str | None]:
    """(URI, endpoint) of an output."""
    if request.param == "local":
        return str(tmp_path / "out"), None
    return join(request.getfixturevalue("s3_bucket"), "out"), request.getfixturevalue("s3_server")


@pytest.fixture
def other(output):
    """A driver that holds the lease, on this machine."""
    command = [sys.executable, "-c", HOLDS, output[0], output[1] or ""]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def file_of(output) -> str:
    return join(output[0], "_work/lease/driver.json")


def of_another_machine(output) -> dict:
    """Writes a lease of a driver that cannot be looked at from here."""
    holder = {**batch_lease.this_process(), "token": "theirs", "machine": "far", "host": "far-host"}
    write_bytes(json.dumps(holder).encode(), file_of(output), output[1])
    return holder


def test_held_while_it_is_open(output):
    with Lease(*output, beat=0.05) as lease:
        first = json.loads(read_bytes(file_of(output), output[1]))
        deadline = time.monotonic() + 20
        while json.loads(read_bytes(file_of(output), output[1]))["beat"] <= first["beat"]:
            assert time.monotonic() < deadline, "it is never renewed"
            time.sleep(0.05)
        lease.check()
        started = time.monotonic()
        with pytest.raises(LeaseError, match="works on it"), Lease(*output):
            pass
        assert time.monotonic() - started < 10, "one that lives here is not waited for"
    assert not exists(file_of(output), output[1])
    with Lease(*output):
        pass


def test_a_living_driver_keeps_it_and_a_killed_one_does_not(output, other):
    with pytest.raises(LeaseError, match=rf"process {other.pid} on .*give another output"):
        Lease(*output).__enter__()
    other.kill()
    other.wait()
    started = time.monotonic()
    with Lease(*output) as lease:
        lease.check()
    assert time.monotonic() - started < 10


def test_another_machine_is_judged_by_its_signs_of_life(output):
    holder, said = of_another_machine(output), []
    with Lease(*output, said.append, stale=0.5):  # it gives none
        assert json.loads(read_bytes(file_of(output), output[1]))["token"] != "theirs"
    assert len(said) == 1 and "far-host" in said[0]

    of_another_machine(output)

    def alive(line: str) -> None:
        write_bytes(json.dumps(holder | {"beat": 7}).encode(), file_of(output), output[1])

    with pytest.raises(LeaseError, match="far-host"), Lease(*output, alive, stale=30):
        pass
    assert json.loads(read_bytes(file_of(output), output[1]))["token"] == "theirs"


def test_a_lease_that_was_taken_is_noticed_and_left(output):
    """As after a sleep of the machine that was longer than others wait."""
    with Lease(*output, beat=0.05) as lease:
        deadline = time.monotonic() + 30
        with pytest.raises(LeaseError, match=r"far-host.* has taken over"):
            while time.monotonic() < deadline:
                of_another_machine(output)  # (again, where just then it was being renewed)
                time.sleep(0.2)
                lease.check()
    assert json.loads(read_bytes(file_of(output), output[1]))["token"] == "theirs"


def test_a_lease_is_looked_at_before_publishing(output):
    """Long before it would be renewed."""
    with Lease(*output, beat=60) as lease:
        lease.check(look=True)
        of_another_machine(output)
        lease.check()
        with pytest.raises(LeaseError, match="has taken over"):
            lease.check(look=True)


def test_whoever_has_its_token_can_look_at_it(output):
    with Lease(*output, beat=60) as lease:
        check_held(output[0], lease.token, output[1])
        of_another_machine(output)
        with pytest.raises(LeaseError, match=r"far-host.* has taken over"):
            check_held(output[0], lease.token, output[1])
        write_bytes(b"{", file_of(output), output[1])
        with pytest.raises(StorageError, match="no batch works on it") as caught:
            check_held(output[0], lease.token, output[1])
        assert caught.value.transient, "its driver writes it anew"
    delete(file_of(output), output[1])
    with pytest.raises(StorageError, match="no batch works on it"):
        check_held(output[0], lease.token, output[1])


@pytest.mark.parametrize("error", [StorageError("no answer"), ConnectionResetError()])
def test_a_storage_that_is_away_is_waited_for(tmp_path: Path, monkeypatch, error: Exception):
    """Longer than others wait for a sign of life; nobody has taken over meanwhile."""
    refused = []

    def away(*arguments) -> None:
        if len(refused) < 5:
            refused.append(arguments)
            raise error
        write_bytes(*arguments)

    with Lease(str(tmp_path), beat=0.05, stale=600) as lease:
        monkeypatch.setattr(batch_lease, "write_bytes", away)
        lease._renewed -= 700
        lease.check()
        assert len(refused) == 5 and lease._silent() < 600


def test_who_took_over_while_the_storage_was_away_is_found(tmp_path: Path, monkeypatch):
    output = str(tmp_path), None
    with Lease(*output, beat=60, stale=600) as lease:
        lease._renewed -= 700
        of_another_machine(output)
        with pytest.raises(LeaseError, match=r"far-host.* has taken over"):
            lease.check()
    assert json.loads(read_bytes(file_of(output)))["token"] == "theirs"


@pytest.mark.parametrize("error", [StorageError("no answer"), ConnectionResetError()])
def test_a_lease_that_cannot_be_renewed_is_lost(tmp_path: Path, monkeypatch, error: Exception):
    def refuse(*_) -> None:
        raise error

    real, ahead = time.monotonic, [0.0]  # (a clock to be put forward, however busy the machine)
    monkeypatch.setattr(batch_lease.time, "monotonic", lambda: real() + ahead[0])
    with Lease(str(tmp_path), beat=0.05, stale=600, patience=600) as lease:
        ahead[0] += 590
        deadline = real() + 30
        while lease._renewed < real() + 580 and real() < deadline:
            time.sleep(0.02)
        lease.check()  # (renewed meanwhile)
        with monkeypatch.context() as patch:
            patch.setattr(batch_lease, "write_bytes", refuse)
            ahead[0] += 300
            time.sleep(0.3)
            lease.check(look=True)
            assert lease._thread.is_alive()
            ahead[0] += 310
            with pytest.raises(LeaseError, match="could not be renewed for"):
                lease.check()


def test_a_lease_that_this_process_could_not_give_back_is_no_ones(tmp_path: Path):
    holder = {**batch_lease.this_process(), "token": "forgotten"}
    output = str(tmp_path), None
    write_bytes(json.dumps(holder).encode(), file_of(output))
    with Lease(*output):
        pass
    for damaged in (b"{", b"[]", b"{}"):
        write_bytes(damaged, file_of(output))
        with Lease(*output, stale=0.2):
            pass
