"""Videos for tests, good and bad, made with PyAV."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth, colourful picture, float (H, W, 3): photographs are mostly low frequencies."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(80, 180, (4, 5, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)


def clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (T, H, W, 3) in which frame number n is told by `frame_number`."""
    base = picture(height, width, seed)
    result = np.repeat(np.rint(base).astype(np.uint8)[None], frames, axis=0)
    for number, frame in enumerate(result):
        for bit in range(6):
            frame[:8, bit * 8 : bit * 8 + 8] = 235 if number >> bit & 1 else 20
    return result


def frame_number(frame: np.ndarray) -> int:
    return sum(int(frame[4, bit * 8 + 4].mean() > 127) << bit for bit in range(6))


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 24,
    full_range: bool = False,
    faststart: bool = True,
    **options: str,
) -> Path:
    mp4 = path.suffix == ".mp4"
    movflags = {"movflags": "faststart"} if faststart and mp4 else {}
    with av.open(str(path), "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = options
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 2 if full_range else 1
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_colorspace="ITU709",
                dst_color_range="JPEG" if full_range else "MPEG",
            )
            frame.colorspace, frame.color_range = 1, context.color_range
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        samples = np.zeros((2, 1024), np.float32)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44100, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut_short(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def damage(source: Path, target: Path, share: float) -> Path:
    """Zero some bytes at that share of the file, as a bad sector does."""
    data = bytearray(source.read_bytes())
    start = int(len(data) * share)
    data[start : start + 600] = bytes(600)
    target.write_bytes(data)
    return target


def claim_frames(source: Path, target: Path, frames: int) -> Path:
    """Let an MP4's time table (stts) speak of more frames than there are."""
    data = bytearray(source.read_bytes())
    entry = data.find(b"stts") + 12
    data[entry : entry + 4] = struct.pack(">I", frames)
    target.write_bytes(data)
    return target


def turn(source: Path, target: Path, degrees: int) -> Path:
    """Set the display matrix in an MP4's track header, as a phone held upright does."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    data = bytearray(source.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(
        ">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
    )
    target.write_bytes(data)
    return target
