"""Footage is a prepared folder's where one is named, else the data set's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import footage as module
from pipelines.data_config import DataConfig
from pipelines.footage import find_footage
from pipelines.manifest import Manifest
from pipelines.prepared import Index, PreparedVideo, write_index
from pipelines.storage import EmptyBucketError, StorageError


@pytest.fixture
def probed(monkeypatch) -> list:
    """What was handed on to be opened."""
    calls = []
    monkeypatch.setattr(
        module, "build_manifest", lambda *given: calls.append(given) or Manifest(())
    )
    return calls


def test_the_data_sets_videos_are_opened(video_folder: Path, probed):
    find_footage(DataConfig(videos=str(video_folder)))
    ((files, endpoint),) = probed
    assert [Path(file.uri).stem for file in files] == list("abcde") and endpoint is None


def test_of_a_prepared_folder_none_is(tmp_path: Path, probed):
    video = PreparedVideo("/gone/a.mp4", 9, "24", 32, 48, (), "")
    write_index(Index(32, 32, 95, "digest", (video,), ()), str(tmp_path))
    cfg = DataConfig(videos="/gone", prepared=str(tmp_path), height=32, width=32)
    found = find_footage(cfg)
    assert [row.uri for row in found.videos] == ["/gone/a.mp4"] and found.digest == "digest"
    assert not probed
    with pytest.raises(StorageError, match=r"smaller than data\.height"):
        find_footage(cfg.model_copy(update={"height": 64}))


def test_pictures_that_are_not_there_are_told_at_once(video_folder: Path, tmp_path: Path, probed):
    cfg = DataConfig(videos=str(video_folder), images=str(tmp_path / "places"))
    with pytest.raises(EmptyBucketError, match=r"places: does not exist\. Places2: take"):
        find_footage(cfg)
    assert not probed
    (tmp_path / "places").mkdir()
    find_footage(cfg)
