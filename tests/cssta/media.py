"""Videos for tests, good and bad, made with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from cssta.video.colour import from_rgb
from cssta.video.planes import bit_depth, has_alpha, planar_format, planes


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


SUBTITLE_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Alignment
Style: Default,Arial,16,&Hffffff,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def make_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: Fraction | int = 24,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    sar: Fraction | None = None,
    rotation: int = 0,
    colour: tuple[int, int, int, int] = (1, 1, 1, 1),
    audio: Sequence[str] = (),
    subtitles: Sequence[str] = (),
    data: str | None = None,
    attachment: bytes | None = None,
    metadata: dict[str, str] | None = None,
    chapters: Sequence[tuple[float, float, str]] = (),
    stream_metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video of any kind that PyAV can write.

    Args:
        frames: RGB or RGBA (T, H, W, 3 or 4), uint8 or uint16.
        pts: time of each frame in `time_base` (default 1 / fps); default 0, 1, 2, ...
        rotation: degrees counter-clockwise of the display matrix (mp4 and mov only).
        colour: primaries, transfer, matrix and range in ffmpeg's numbers.
        audio: a codec for each audio track; each is a tone of another pitch as long as the video.
        subtitles: a codec ("mov_text", "subrip", ...) for each subtitle track, two lines each.
        data: codec of a data stream with one packet per second, e.g. "bin_data" in .ts.
        attachment: a file to attach (mkv).
        chapters: (start, end, title), times in seconds.
        options: of the video encoder; `stream_metadata` of its stream.
    """
    fps = Fraction(fps)
    time_base = time_base or 1 / fps
    pts = list(range(len(frames))) if pts is None else list(pts)
    seconds = float((pts[-1] - pts[0]) * time_base + 1 / fps)
    container_options = {**({"movflags": "faststart"} if path.suffix == ".mp4" else {})} | (
        container_options or {}
    )
    with av.open(str(path), "w", options=container_options) as container:
        container.metadata.update(metadata or {})
        if chapters:
            container.set_chapters(
                [
                    {
                        "id": number,
                        "start": round(start * 1000),
                        "end": round(end * 1000),
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": title},
                    }
                    for number, (start, end, title) in enumerate(chapters)
                ]
            )
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = options or {}
        stream.metadata.update(stream_metadata or {})
        context = stream.codec_context
        context.time_base = time_base
        stream.time_base = time_base
        context.color_primaries, context.color_trc, context.colorspace = colour[:3]
        context.color_range = colour[3]
        if sar:
            context.sample_aspect_ratio = sar
        tracks = [_add_audio(container, name) for name in audio]
        texts = [_add_subtitles(container, name) for name in subtitles]
        extra = container.add_data_stream(data) if data else None
        if attachment is not None:
            container.add_attachment("notes.txt", "text/plain", attachment)
        packets = []
        for time, frame in zip(pts, native_frames(frames, pix_fmt, colour), strict=True):
            frame.pts, frame.time_base = time, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number, track in enumerate(tracks):
            packets += _tone(track, 220 * (number + 1), seconds)
        for number, text in enumerate(texts):
            packets += _lines(text, f"track {number}", seconds)
        if extra is not None:
            packets += [_packet(extra, b"data %d" % t, t, 1) for t in range(max(1, int(seconds)))]
        container.start_encoding()
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    if rotation % 360:
        turn(path, path, -rotation % 360)
    return path


def native_frames(
    frames: np.ndarray, pix_fmt: str, colour: tuple[int, int, int, int] = (1, 1, 1, 1)
) -> Iterator[av.VideoFrame]:
    """RGB(A) (T, H, W, 3 or 4) as frames of a pixel format, matrix and range."""
    for pixels in frames:
        like = av.VideoFrame(
            pixels.shape[1], pixels.shape[0], planar_format(av.VideoFormat(pix_fmt))
        )
        like.color_primaries, like.color_trc, like.colorspace, like.color_range = colour
        if pixels.shape[2] == 4 and has_alpha(like.format):
            top = 2 ** bit_depth(like.format) - 1
            planes(like)[-1][:] = np.rint(pixels[..., 3] * (top / np.iinfo(pixels.dtype).max))
        frame = from_rgb(pixels[..., :3], like)
        if frame.format.name != pix_fmt:
            frame = frame.reformat(format=pix_fmt, interpolation=0x10, threads=1)
        yield frame


def _add_audio(container, codec: str):
    stream = container.add_stream(codec, rate=48000)
    stream.layout = "stereo"
    return stream


def _tone(stream, pitch: int, seconds: float) -> list[av.Packet]:
    rate = 48000
    time = np.arange(max(1, round(seconds * rate))) / rate
    wave = np.tile((0.2 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), (2, 1))
    resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
    size = stream.codec_context.frame_size or 1024
    packets = []
    for start in range(0, wave.shape[1], size):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave[:, start : start + size]), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for piece in resampler.resample(frame):
            packets += stream.encode(piece)
    return packets + stream.encode(None)


def _add_subtitles(container, codec: str):
    stream = container.add_stream(codec)
    stream.codec_context.subtitle_header = SUBTITLE_HEADER
    stream.time_base = Fraction(1, 1000)
    return stream


def _lines(stream, text: str, seconds: float) -> list[av.Packet]:
    half = max(1, int(seconds * 500))
    packets = []
    for number in (0, 1):
        line = f"{text}, line {number}".encode()
        if stream.codec_context.name == "mov_text":
            line = struct.pack(">H", len(line)) + line
        packets.append(_packet(stream, line, number * half, half, Fraction(1, 1000)))
    return packets


def _packet(
    stream, payload: bytes, pts: int, duration: int, time_base: Fraction = Fraction(1)
) -> av.Packet:
    packet = av.Packet(payload)
    packet.stream, packet.time_base = stream, time_base
    packet.pts = packet.dts = pts
    packet.duration = duration
    return packet
