"""Against moto, an imitation of S3."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "create_buckets.py"
specification = importlib.util.spec_from_file_location("create_buckets", SCRIPT)
create_buckets = importlib.util.module_from_spec(specification)
specification.loader.exec_module(create_buckets)


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    yield client
    server.stop()


def test_creates_what_is_missing_and_leaves_the_rest_alone(s3, capsys):
    s3.create_bucket(Bucket="mlflow")
    s3.put_object(Bucket="mlflow", Key="kept", Body=b"1")
    assert create_buckets.main(["mlflow", "cssta"]) == 0
    assert capsys.readouterr().out.splitlines() == ["mlflow: exists", "cssta: created"]
    assert {b["Name"] for b in s3.list_buckets()["Buckets"]} >= {"mlflow", "cssta"}
    assert s3.get_object(Bucket="mlflow", Key="kept")["Body"].read() == b"1"
    assert create_buckets.main(["mlflow", "cssta"]) == 0  # again: nothing to do
    assert capsys.readouterr().out.splitlines() == ["mlflow: exists", "cssta: exists"]


def test_a_refused_name_is_reported_with_the_server(s3, capsys):
    assert create_buckets.main(["x"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("buckets x at http://127.0.0.1")
    assert "bucket is not valid" in message


def test_a_server_that_is_away_is_reported(s3, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert create_buckets.main(["cssta"]) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_no_names_is_a_usage_error(capsys):
    assert create_buckets.main([]) == 2
    assert "usage" in capsys.readouterr().err
