"""Decoded frames as arrays: every component (Y, U, V or R, G, B, then alpha) in a plane of its own.

Most decoders hand out planar, little-endian samples already. The rest (nv12, yuyv422, rgb24, bgra,
palettes, big-endian) is repacked into the planar format with the same samples, which loses nothing.
"""

from __future__ import annotations

import numpy as np
from av import VideoFormat, VideoFrame

UNSCALED = 0x10  # SWS_POINT: repacking reads every sample where it is
SUBSAMPLING = {(0, 0): "444", (1, 0): "422", (1, 1): "420", (2, 0): "411", (2, 2): "410"}


def bit_depth(format: VideoFormat) -> int:
    """Bits of the deepest component; 8 at least (a palette's entries are 8-bit colours)."""
    return max(8, *(component.bits for component in format.components))


def has_alpha(format: VideoFormat) -> bool:
    return any(component.is_alpha for component in format.components) or format.has_palette


def planar(frame: VideoFrame) -> VideoFrame:
    """The frame with each component in its own little-endian plane; itself if it is so already."""
    name = planar_format(frame.format)
    if name == frame.format.name:
        return frame
    # With several threads, swscale now and then leaves out lines of chroma (seen with p010).
    return frame.reformat(format=name, interpolation=UNSCALED, threads=1)


def planar_format(format: VideoFormat) -> str:
    """Name of the format that holds the same samples in planes, e.g. yuv420p for nv12."""
    components = format.components
    depth = bit_depth(format)
    own_plane = len({component.plane for component in components}) == len(components)
    whole_bytes = min(component.bits for component in components) >= 8
    shifted = format.name[0] in "pxy" and format.name[1:2].isdigit()  # p010, xv36, y210: high bits
    if own_plane and whole_bytes and not (format.is_big_endian or format.has_palette or shifted):
        return format.name
    suffix = "" if depth == 8 else f"{depth}le"
    alpha = "a" if has_alpha(format) else ""
    if format.is_rgb or format.has_palette or format.name.startswith("ya"):
        deep = {9, 10, 12, 14, 16} if not alpha else {10, 12, 14, 16}
        return f"gbr{alpha}p" + (suffix if depth == 8 or depth in deep else "16le")
    if len(components) == 1:
        return "gray" + suffix
    width, height = (format.chroma_width(64).bit_length(), format.chroma_height(64).bit_length())
    return f"yuv{alpha}{SUBSAMPLING[7 - width, 7 - height]}p{suffix}"


def planes(frame: VideoFrame) -> list[np.ndarray]:
    """Writable views (h, w) of the components of a planar frame, uint8, or uint16 if deeper.

    In the components' order: Y, U, V or R, G, B, then alpha; chroma may be smaller. The views are
    of the frame's own memory: `frame.make_writable()` before changing a frame that others use.
    """
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.dtype("<u2")
    views = []
    for component in frame.format.components:
        plane = frame.planes[component.plane]
        lines = np.frombuffer(plane, kind).reshape(plane.height, -1)
        views.append(lines[:, : plane.width])
    return views
