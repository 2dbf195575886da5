"""The encoders there are: how each is asked for quality, and settings that make it repeatable.

A resumed job must give the same file bit for bit, on whatever number of cores. Where threads change
the outcome (x264, x265) their number is therefore fixed. x264 goes without its macroblock tree,
which with AVX-512 depends on memory that it has not initialised (core 165).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import av

from cssta.video.properties import MasteringDisplay

QP_TO_LAMBDA = 118


@dataclass(frozen=True)
class Encoder:
    """How a codec is written.

    Attributes:
        name: ffmpeg's name of the encoder.
        quality: (default, best, worst) constant quality; None where there is no such thing. The
            defaults cannot be told from the source side by side.
        options: always given.
        threads: of ffmpeg's own; encoders with 0 count the cores themselves.
    """

    name: str
    quality: tuple[float, float, float] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 4

    def formats(self) -> tuple[str, ...]:
        """Pixel formats that it takes; () for any."""
        return tuple(f.name for f in av.codec.Codec(self.name, "w").video_formats or ())

    def settings(self, crf: float | None) -> dict[str, str]:
        """Options for this quality."""
        options = dict(self.options)
        if self.quality is None:
            return options
        value = self.quality[0] if crf is None else crf
        if self.name in QUANTISERS:
            options |= {"flags": "+qscale", "global_quality": str(round(value * QP_TO_LAMBDA))}
        else:
            options["crf"] = f"{value:g}"
        return options


QUANTISERS = {"mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}  # `crf` is their quantiser's scale

ENCODERS = {
    # Delimiters tell two key frames in a row apart, where a segment is one frame long. Without the
    # tree, a clip takes 1 to 2 % more at equal PSNR, and CRF 14.5 gives what 16 gave with it.
    # Threads take a frame each: slices would cost 1 to 3 %.
    "h264": Encoder(
        "libx264",
        (14.5, 0, 51),
        {"preset": "medium", "x264-params": "aud=1:mbtree=0:sliced-threads=0"},
        3,
    ),
    "hevc": Encoder(
        "libx265",
        (16, 0, 51),
        {
            "preset": "medium",
            "x265-params": "open-gop=0:frame-threads=3:info=0:log-level=error",
        },
        0,
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        (18, 0, 63),
        {"b": "0", "deadline": "good", "cpu-used": "2", "tile-columns": "2", "row-mt": "0"},
    ),
    "vp8": Encoder("libvpx", (8, 4, 63), {"b": "0", "deadline": "good", "cpu-used": "2"}),
    "av1": Encoder("libsvtav1", (18, 1, 63), {"preset": "6"}, 0),
    "prores": Encoder("prores_ks", None, {"vendor": "apl0"}),
    "ffv1": Encoder("ffv1", None, {"level": "3", "g": "1", "slicecrc": "1", "context": "1"}),
    "mpeg4": Encoder("mpeg4", (2, 1, 31), {"bf": "2"}, 1),
    "mpeg2video": Encoder("mpeg2video", (2, 1, 31), {"bf": "2"}, 1),
    "mjpeg": Encoder("mjpeg", (2, 1, 31), {"strict": "unofficial"}, 1),  # for limited range
    "png": Encoder("png"),
    "qtrle": Encoder("qtrle"),
}

# Lossless codecs that the containers written here do not take: FFV1 takes their place.
LIKE_FFV1 = {"utvideo", "huffyuv", "ffvhuff", "magicyuv", "lagarith", "rawvideo", "v210", "v410"}

ALIASES = {"h265": "hevc", "x264": "h264", "x265": "hevc", "avc": "h264", "svtav1": "av1"}

PRORES_PROFILES = {
    "Proxy": "proxy",
    "LT": "lt",
    "Standard": "standard",
    "HQ": "hq",
    "4444": "4444",
    "XQ": "4444xq",
}
PRORES_TAGS = {
    "proxy": "apco",
    "lt": "apcs",
    "standard": "apcn",
    "hq": "apch",
    "4444": "ap4h",
    "4444xq": "ap4x",
}


def hdr_options(
    codec: str, mastering: MasteringDisplay | None, light: tuple[int, int] | None
) -> dict[str, str]:
    """HDR10's static description as the encoder of `codec` takes it; {} where it takes none."""
    keys = {
        "h264": ("mastering-display", "cll"),
        "hevc": ("master-display", "max-cll"),
        "av1": ("mastering-display", "content-light"),
    }.get(codec)
    if keys is None:
        return {}
    options = {}
    if mastering is not None:
        unit = (50_000, 10_000) if codec == "av1" else None  # SVT takes fractions and cd/m2
        points = (mastering.green, mastering.blue, mastering.red, mastering.white)
        texts = [_pair(point, unit and unit[0]) for point in points]
        luminance = _pair(mastering.luminance[::-1], unit and unit[1])
        names = ("G", "B", "R", "WP")
        joined = "".join(f"{name}({text})" for name, text in zip(names, texts, strict=True))
        options[keys[0]] = f"{joined}L({luminance})"
    if light is not None:
        options[keys[1]] = f"{light[0]},{light[1]}"
    return options


def _pair(values: tuple[int, int], unit: int | None) -> str:
    return ",".join(f"{value / unit:.6f}" if unit else str(value) for value in values)
