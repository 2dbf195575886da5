"""What the first frame of a video file shows that its copy must show too."""

from __future__ import annotations

import logging
import struct
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from cssta.video.colour import FULL, LIMITED, UNSPECIFIED, Colour
from cssta.video.container import decode_frames, open_video
from cssta.video.errors import VideoError
from cssta.video.planes import bit_depth, planar_format

log = logging.getLogger(__name__)

CHROMATICITY, LUMINANCE = 50_000, 10_000  # units per 1 and per cd/m2 in HDR10's own messages
TOP, BOTTOM = 2, 3
FIELDS = {2: TOP, 3: BOTTOM, 4: BOTTOM, 5: TOP}  # by ffmpeg's order of coding and showing
PER_FRAME_HDR = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
}


@dataclass(frozen=True)
class MasteringDisplay:
    """HDR10's reference display: (x, y) of red, green, blue, white; least and most luminance.

    Whole numbers, in units of 1/50000 and of 1/10000 cd/m2.
    """

    red: tuple[int, int]
    green: tuple[int, int]
    blue: tuple[int, int]
    white: tuple[int, int]
    luminance: tuple[int, int]

    @classmethod
    def parse(cls, data: bytes) -> MasteringDisplay | None:
        """From libavutil's AVMasteringDisplayMetadata; None where a half of it is missing."""
        numbers = struct.unpack_from("=22i", data)
        if not (numbers[20] and numbers[21]):
            return None
        values = [n / d if d else 0 for n, d in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        points = [round(value * CHROMATICITY) for value in values[:8]]
        least, most = (round(value * LUMINANCE) for value in values[8:])
        pairs = list(zip(points[::2], points[1::2], strict=True))
        return cls(*pairs, (least, most))


@dataclass(frozen=True)
class VideoProperties:
    """A video stream as a player takes it.

    Attributes:
        pix_fmt: in planar form.
        matrix: display matrix, nine numbers of libavutil's layout; None = as stored.
        mastering, light: HDR10's static description; light is (maximum, average) cd/m2.
        per_frame: names of the kinds of HDR description that come with every frame.
        fields: 0 where frames are whole, else which of two fields is shown first (TOP, BOTTOM).
        tag: the container's four letters for the codec, "" where it has none.
        profile: the encoder's name of the profile.
    """

    codec: str
    pix_fmt: str
    bit_depth: int
    height: int
    width: int
    colour: Colour
    sar: Fraction
    matrix: tuple[int, ...] | None
    mastering: MasteringDisplay | None
    light: tuple[int, int] | None
    per_frame: tuple[str, ...]
    fields: int
    tag: str
    profile: str | None


def look(path: Path) -> tuple[VideoProperties, av.VideoFrame]:
    """The properties and the first frame. Raises VideoError where there is none."""
    with closing(decode_frames(path)) as frames:
        frame = next(frames, None)
    if frame is None:
        raise VideoError(path, "no-frames", "no frame can be decoded", "Copy it again whole")
    with open_video(path) as (container, stream):
        context = stream.codec_context
        sar = stream.sample_aspect_ratio
        for packet in container.demux(stream) if not sar else ():
            if packet.decode():  # only the pictures themselves say it
                sar = context.sample_aspect_ratio
                break
        side = _side_data(frame)
        matrix = side.get("DISPLAYMATRIX")
        mastering = side.get("MASTERING_DISPLAY_METADATA")
        light = side.get("CONTENT_LIGHT_LEVEL")
        properties = VideoProperties(
            codec=canonical(context.name),
            pix_fmt=planar_format(frame.format),
            bit_depth=bit_depth(frame.format),
            height=frame.height,
            width=frame.width,
            colour=Colour.of(frame),
            sar=sar or Fraction(1),
            matrix=_turning(struct.unpack("=9i", matrix)) if matrix else None,
            mastering=MasteringDisplay.parse(mastering) if mastering else None,
            light=struct.unpack_from("=2I", light) if light else None,
            per_frame=tuple(sorted({PER_FRAME_HDR[k] for k in side if k in PER_FRAME_HDR})),
            fields=_fields(context, frame),
            tag=(context.codec_tag or "").strip("\0 "),
            profile=context.profile,
        )
    return properties, frame


def _fields(context: av.VideoCodecContext, frame: av.VideoFrame) -> int:
    told = getattr(context, "field_order", 0)  # from PyAV 18 on
    return FIELDS.get(told, TOP if frame.interlaced_frame else 0)


def _turning(matrix: tuple[int, ...]) -> tuple[int, ...] | None:
    """The matrix if it turns or mirrors the picture; a shift that it may hold plays no part."""
    a, b, _, c, d = matrix[:5]
    return None if (b, c) == (0, 0) and a == d > 0 else (a, b, 0, c, d, 0, 0, 0, 1 << 30)


def _side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    try:
        return {data.type.name: bytes(data) for data in frame.side_data}
    except ValueError:  # a kind that PyAV has no name for, and then it shows none
        log.debug("a frame has side data of an unknown kind")
        return {}


def canonical(codec: str) -> str:
    """ffmpeg's name of the codec that a decoder or encoder is for: av1 for libdav1d."""
    for mode in ("r", "w"):
        try:
            return av.codec.Codec(codec, mode).canonical_name
        except (av.codec.codec.UnknownCodecError, ValueError):
            continue
    return codec


def differences(source: VideoProperties, copy: VideoProperties) -> list[str]:
    """What a player would take differently in the copy, in words."""
    found = []
    for name, words in (
        ("height", "height"),
        ("width", "width"),
        ("sar", "sample aspect ratio"),
        ("matrix", "rotation"),
        ("mastering", "HDR10 mastering display"),
        ("light", "HDR10 light level"),
        ("per_frame", "HDR description per frame"),
    ):
        before, after = getattr(source, name), getattr(copy, name)
        if before != after:
            found.append(f"the {words} {_words(before)} became {_words(after)}")
    if source.fields != copy.fields and hasattr(av.VideoCodecContext, "field_order"):
        kinds = {0: "whole frames", TOP: "top field first", BOTTOM: "bottom field first"}
        found.append(f"{kinds[source.fields]} became {kinds[copy.fields]}")
    if source.pix_fmt.startswith("gbr") and not copy.pix_fmt.startswith("gbr"):
        return found  # the user had it converted
    before, after = source.colour, copy.colour
    for name in ("primaries", "transfer", "matrix", "range"):
        old, new = (_colour(c, name, p) for c, p in ((before, source), (after, copy)))
        if old != new:
            found.append(f"the colour {name} {old} became {new}")
    return found


def _words(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, MasteringDisplay):
        return f"with {value.luminance[1] / LUMINANCE:g} cd/m2"
    return (
        ", ".join(value) if isinstance(value, tuple) and isinstance(value[0], str) else str(value)
    )


def _colour(colour: Colour, name: str, properties: VideoProperties) -> int:
    """A tag, or what its absence stands for."""
    value = getattr(colour, name)
    is_rgb = properties.pix_fmt.startswith("gbr")
    if name == "range":
        if is_rgb or properties.pix_fmt.startswith("yuvj"):
            return FULL
        return value or (FULL if properties.pix_fmt.startswith("gray") else LIMITED)
    if name == "matrix" and is_rgb:
        return 0
    return UNSPECIFIED if value in (0, UNSPECIFIED) else value
