"""An S3 server (moto's imitation, on loopback, gone afterwards) and folders of small videos."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server that knows every credential, without buckets."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an empty bucket, reachable by `s3_server` with the environment's credentials."""
    from pyarrow import fs

    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    system = fs.S3FileSystem(
        endpoint_override=s3_server.removeprefix("http://"),
        scheme="http",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    system.create_dir("bucket")
    yield "s3://bucket"
    system.delete_dir("bucket")


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five small videos, a.mp4 (12 frames, 48x64) to e.mp4 (28 frames); read only.

    Frame i of video v is a slope from left to right whose blue channel is 40 v + 4 i, about.
    """
    from cssta.video import write_video

    folder = tmp_path_factory.mktemp("videos")
    slope = np.linspace(0, 255, 64)[None, :, None].repeat(48, 0).repeat(3, 2).astype(np.uint8)
    for number, name in enumerate("abcde"):
        frames = np.stack([slope] * (12 + 4 * number))
        frames[..., 2] = (40 * number + 4 * np.arange(len(frames)))[:, None, None]
        write_video(folder / f"{name}.mp4", frames, 24)
    return folder


@pytest.fixture
def damaged_folder(tmp_path: Path, video_folder: Path) -> Path:
    """The same with four files more that are no videos: text, nothing, a beginning, noise."""
    folder = tmp_path / "damaged"
    shutil.copytree(video_folder, folder)
    good = (folder / "a.mp4").read_bytes()
    (folder / "text.mp4").write_text("this is no video")
    (folder / "nothing.mp4").write_bytes(b"")
    (folder / "beginning.mp4").write_bytes(good[:40])
    (folder / "noise.mov").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder
