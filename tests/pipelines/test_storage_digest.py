"""What arrives damaged, though not shorter, never has its final name when `publish` returns."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pyarrow import fs as pafs

from pipelines import storage
from pipelines.storage import StorageError
from tests.pipelines.test_storage import bucket, put  # noqa: F401 (a fixture)

CONTENT = b"newer film " * 100


def files(place: tuple[str, str | None]) -> list[str]:
    system, root = storage.filesystem(*place)
    found = system.get_file_info(pafs.FileSelector(root, recursive=True))
    return [info.path[len(root) + 1 :] for info in found if info.is_file]


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "too-large-to-move"])
def test_damage_on_the_way_is_noticed_before_the_name_is_given(
    tmp_path: Path,
    bucket: tuple[str, str | None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    moved: bool,
):
    uri = put(tmp_path, bucket, "film.mp4", b"older")
    local = tmp_path / "film.mp4"
    local.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    if not moved:
        monkeypatch.setattr(storage, "MOST_MOVED", 10)
    arguments = (local, uri, bucket[1], storage.join(bucket[0], "_work"), digest)

    def damaging(source: str, destination: str, *, destination_filesystem) -> None:
        content = Path(source).read_bytes()
        with destination_filesystem.open_output_stream(destination) as stream:
            stream.write(content[:-1] + b"?")

    with monkeypatch.context() as patch:
        patch.setattr(pafs, "copy_files", damaging)
        with pytest.raises(StorageError, match="damaged on its way") as caught:
            storage.publish(*arguments)
        assert caught.value.transient
    if moved or bucket[1] is None:
        assert storage.read_bytes(uri, bucket[1]) == b"older"
        assert files(bucket) == ["film.mp4"]
    else:  # (under its name at once: there is none rather than a bad one)
        assert files(bucket) == []
    storage.publish(*arguments)
    assert storage.read_bytes(uri, bucket[1]) == CONTENT
    assert files(bucket) == ["film.mp4"]
