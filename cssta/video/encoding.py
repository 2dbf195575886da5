"""Deciding how an output is written, before any work: like the source, or not at all.

Whatever would be lost on the way (bits, colour tags, HDR descriptions, a stream) is found by
writing and reading one frame, and refused with the remedy, unless the user accepts the loss.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from cssta.video.colour import BT709, FULL, HDR_TRANSFERS, LIMITED, Colour
from cssta.video.encoders import (
    ALIASES,
    ENCODERS,
    LIKE_FFV1,
    PRORES_PROFILES,
    PRORES_TAGS,
    QUANTISERS,
    Encoder,
    hdr_options,
)
from cssta.video.errors import VideoError
from cssta.video.planes import bit_depth, planar_format
from cssta.video.properties import TOP, VideoProperties, canonical, look
from cssta.video.rehearsal import CONTAINERS, rehearsed
from cssta.video.segment_writer import Encoding

if TYPE_CHECKING:
    from cssta.video.source import SourceInfo

log = logging.getLogger(__name__)

# Encoders of RGB ask for it packed, those of full range YUV do not know it by that name.
EQUAL = {
    "gbrp": ("bgr0", "rgb24", "bgra"),
    "gbrap": ("bgra", "rgba"),
    "gbrp16le": ("rgb48le", "rgb48be"),
    "gbrap16le": ("rgba64le", "rgba64be"),
}
MPEG_RATES = [Fraction(n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1))]
MPEG_RATES += [Fraction(50), Fraction(60000, 1001), Fraction(60)]
DEEP = 10  # bits, without which HDR shows bands
SMALL = 512 * 512  # pixels up to which FFV1 is cut into 4 slices, not 16
CIF = (288, 352)  # and up to which into one
WITH_FIELDS = ("h264", "mpeg2video", "mpeg4", "prores")
PARAMETERS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}


def choose_encoding(
    info: SourceInfo,
    output: str | Path,
    *,
    lossless: bool = False,
    codec: str | None = None,
    crf: float | None = None,
    pix_fmt: str | None = None,
    accept_loss: bool = False,
) -> Encoding:
    """How to write `output` so that all but the holes is as in the source.

    Args:
        output: its ending chooses the container.
        lossless: FFV1, which .mkv holds.
        codec, crf, pix_fmt: instead of the source's codec and pixel format, and of a quality that
            looks like the source's.
        accept_loss: warn in the log of what cannot be kept, instead of raising.

    Raises:
        VideoError ("format"): the choices do not go together, or something would be lost.
    """
    output = Path(output)
    container = CONTAINERS.get(output.suffix.lower())
    if container is None:
        raise VideoError(
            output,
            "format",
            f"{output.suffix or 'a name without ending'} cannot be written",
            f"End the name in {', '.join(CONTAINERS)}; or leave the ending off for PNG frames",
        )
    source = None if info.is_folder else look(info.path)[0]
    name = _codec(info, output, lossless, codec)
    encoder = ENCODERS[name]
    if crf is not None and (encoder.quality is None or not _within(crf, encoder)):
        bounds = encoder.quality and f"between {encoder.quality[1]} and {encoder.quality[2]}"
        raise VideoError(
            output,
            "format",
            f"{name} knows no quality {crf:g}",
            f"Give one {bounds}" if bounds else "Leave it out",
        )
    stored = _pixel_format(info, output, name, encoder, pix_fmt, accept_loss, lossless)
    deep = source is not None and bit_depth(av.VideoFormat(stored)) > 8  # HDR needs that
    options = encoder.settings(crf) | _own_options(info, name, stored, source)
    if deep:
        options = _with_hdr(options, encoder, name, source)
    encoding = Encoding(
        codec=name,
        encoder=encoder.name,
        pix_fmt=stored,
        container=container,
        rate=_rate(info, name),
        colour=_colour(info, stored),
        sar=source.sar if source else info.sar,
        matrix=source.matrix if source else None,
        mastering=source.mastering if deep else None,
        light=source.light if deep else None,
        options=options,
        threads=encoder.threads,
        lossless=lossless,
        tag=_tag(container, name, options),
    )
    encoding = rehearsed(info, output, encoding, accept_loss)
    log.info("%s: to be written as %s", output, encoding)
    return encoding


def _within(crf: float, encoder: Encoder) -> bool:
    return encoder.quality[1] <= crf <= encoder.quality[2]


def _codec(info: SourceInfo, output: Path, lossless: bool, codec: str | None) -> str:
    if codec is not None:
        wanted = ALIASES.get(codec.lower(), codec.lower())
        wanted = wanted if wanted in ENCODERS else canonical(wanted)
        if wanted not in ENCODERS:
            raise VideoError(
                output, "format", f"no codec {codec} is known", f"Choose of {', '.join(ENCODERS)}"
            )
        if lossless and wanted != "ffv1":
            raise VideoError(
                output, "format", f"{codec} is not the lossless codec", "Leave --codec out"
            )
        return wanted
    if lossless:
        return "ffv1"
    own = canonical(info.codec)
    if own in ENCODERS and not info.is_folder:
        return own
    instead = "ffv1" if own in LIKE_FFV1 else "h264"
    log.info("%s: %s is not written here; %s is instead", info.path, info.codec, instead)
    return instead


def _pixel_format(
    info: SourceInfo,
    output: Path,
    codec: str,
    encoder: Encoder,
    asked: str | None,
    accept_loss: bool,
    lossless: bool,
) -> str:
    """What the encoder gets. Raises VideoError where it does not hold the source's samples."""
    own = planar_format(av.VideoFormat(info.pix_fmt))
    if asked is not None:
        try:
            format = av.VideoFormat(asked)
        except ValueError as error:
            raise VideoError(
                output, "format", f"no pixel format {asked} is known", "Try yuv420p or yuv420p10le"
            ) from error
        is_hdr = info.bit_depth >= DEEP and info.colour.transfer in HDR_TRANSFERS
        if is_hdr and bit_depth(format) < DEEP and not accept_loss:
            raise VideoError(
                output,
                "format",
                f"{HDR_TRANSFERS[info.colour.transfer]} colours need {DEEP} bits, and {asked} has "
                f"{bit_depth(format)}",
                "Leave --pix-fmt out, or add --accept-loss to see bands where it is smooth",
            )
        if bit_depth(format) < info.bit_depth:
            log.warning(
                "%s: %d bits become %d, as asked", info.path, info.bit_depth, bit_depth(format)
            )
        if lossless and _equal_format(own, encoder) != _equal_format(asked, encoder):
            raise VideoError(
                output,
                "format",
                f"--lossless keeps the source's samples, {own}, and {asked} has others",
                "Leave --pix-fmt or --lossless out",
            )
        own = asked
    stored = _equal_format(own, encoder)
    if stored is not None:
        return stored
    is_rgb = own.startswith("gbr")
    if info.is_folder and asked is None and is_rgb and info.bit_depth == 8 and not info.has_alpha:
        even = info.stored_height % 2 == 0 == info.stored_width % 2
        log.info("%s: RGB pictures become %s", info.path, "yuv420p" if even else "yuv444p")
        return "yuv420p" if even else "yuv444p"
    others = ("av1", "vp9") if output.suffix.lower() == ".webm" else ("hevc", "av1", "h264")
    able = [n for n in others if _equal_format(own, ENCODERS[n])]
    depth = bit_depth(av.VideoFormat(own))
    near = [f for f in encoder.formats() if bit_depth(av.VideoFormat(f)) >= min(depth, 10)][:4]
    remedies = [f"--codec {able[0]}"] if able else []
    remedies += [f"--pix-fmt {near[0]}"] if near else []
    if _equal_format(own, ENCODERS["ffv1"]):
        remedies.append("--lossless with a name that ends in .mkv")
    raise VideoError(
        output,
        "format",
        f"{codec} cannot hold {own}, the source's pixels"
        if asked is None
        else f"{codec} cannot hold {own}",
        f"Choose {', or '.join(remedies) or 'another --codec'}",
    )


def _equal_format(own: str, encoder: Encoder) -> str | None:
    """The encoder's format that holds the samples of `own` unchanged, if there is one."""
    formats = encoder.formats()
    for name in (own, own.replace("yuvj", "yuv"), *EQUAL.get(own, ())):
        if name in formats:
            return name
    return None


def _colour(info: SourceInfo, pix_fmt: str) -> Colour:
    """The source's tags as they hold for `pix_fmt`."""
    colour = info.colour
    target, source = av.VideoFormat(pix_fmt), av.VideoFormat(info.pix_fmt)
    if source.is_rgb and not target.is_rgb:
        return Colour(BT709, colour.transfer, BT709, LIMITED)
    if info.pix_fmt.startswith("yuvj") and not pix_fmt.startswith("yuvj"):
        return replace(colour, range=FULL)
    return colour


def _rate(info: SourceInfo, codec: str) -> Fraction:
    if codec == "mpeg2video":
        return min(MPEG_RATES, key=lambda rate: abs(rate - info.fps))
    return max(Fraction(1, 1000), info.fps.limit_denominator(1001))


def _own_options(
    info: SourceInfo, codec: str, pix_fmt: str, source: VideoProperties | None
) -> dict[str, str]:
    options = {}
    if codec == "ffv1":
        height, width = info.stored_height, info.stored_width
        small = "1" if height <= CIF[0] and width <= CIF[1] else "4"
        options["slices"] = small if height * width <= SMALL else "16"
    if source is not None and source.fields:
        options["field_order"] = "tt" if source.fields == TOP else "bb"
        if codec in WITH_FIELDS:
            options["flags"] = "+ildct+ilme" + ("+qscale" if codec in QUANTISERS else "")
    if codec in ("vp8", "vp9") and pix_fmt.startswith("yuva"):
        options["auto-alt-ref"] = "0"
    if codec == "prores" and source is not None:
        name = (source.profile or "").split()[-1] if source.codec == "prores" else ""
        options["profile"] = PRORES_PROFILES.get(name, "4444" if "444" in pix_fmt else "hq")
    return options


def _with_hdr(
    options: dict[str, str],
    encoder: Encoder,
    codec: str,
    source: VideoProperties,
) -> dict[str, str]:
    hdr = hdr_options(codec, source.mastering, source.light)
    if not hdr:
        return options
    key = PARAMETERS[encoder.name]
    parts = [options[key]] if key in options else []
    return options | {key: ":".join(parts + [f"{k}={v}" for k, v in hdr.items()])}


def _tag(container: str, codec: str, options: dict[str, str]) -> str:
    if codec == "prores":  # it says the profile
        return PRORES_TAGS[options["profile"]]
    # hvc1 rather than hev1: Apple's players want it, the others take both.
    return "hvc1" if codec == "hevc" and container in ("mp4", "mov") else ""
