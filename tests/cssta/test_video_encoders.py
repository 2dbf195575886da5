from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import av
import numpy as np

from cssta.video import SegmentWriter, choose_encoding, open_source
from cssta.video.compose import as_frame
from cssta.video.segment_writer import as_format

FRAMES, RUNS = 10, 3
# glibc then hands out again what was freed, as it is: nothing comes from the system as zeros.
REUSE = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def test_equal_frames_make_equal_packets_whatever_lies_in_memory(shared_dir):
    """With AVX-512, x264's macroblock tree depends on it."""
    root = Path(__file__).parents[2]
    clip = shared_dir / "davis/JPEGImages/480p/dog"
    call = f"from {__name__} import digests; print(*digests({str(clip)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", call],
        cwd=root,
        env={**os.environ, **REUSE},
        check=True,
        capture_output=True,
        text=True,
    )
    found = done.stdout.split()
    assert len(found) == RUNS and len(set(found)) == 1


def digests(clip: str) -> list[str]:
    """Of the packets of `RUNS` encodings of the same frames, memory filled with noise before."""
    source = open_source(clip)
    encoding = choose_encoding(source.info, "out.mp4")
    frames = [
        as_format(as_frame(frame.native), encoding.pix_fmt, encoding.colour)
        for frame in itertools.islice(source.frames(), FRAMES)
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(RUNS):
            litter(run)
            path = Path(folder, "segment")
            with SegmentWriter(path, encoding, source.info) as writer:
                for frame in frames:
                    writer.write(frame)
            with av.open(str(path)) as container:
                packets = b"".join(bytes(packet) for packet in container.demux(video=0))
            found.append(sha256(packets).hexdigest())
    return found


def litter(seed: int) -> None:
    """Fill memory with noise, in pieces of all sizes, and let go of it."""
    noise = np.random.default_rng(seed).bytes(2**24)
    sizes = [2**power for power in range(9, 25) for _ in range(min(256, 2**25 >> power))]
    np.random.default_rng(seed).shuffle(sizes)
    pieces = [bytearray(noise[:size]) for size in sizes]
    pieces.clear()
