"""What a Matroska file says of a video track, added after it has been written.

The muxer behind PyAV cannot be told the sample aspect ratio and HDR10's static description, which
FFV1, VP9 and AV1 do not hold themselves. They go into the track's header; the room comes from what
the muxer leaves empty in front of it, so that nothing else in the file moves.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from cssta.video.properties import CHROMATICITY, LUMINANCE, MasteringDisplay

# Identifiers of elements, as in RFC 9559.
EBML, SEGMENT, SEEK_HEAD = 0x1A45DFA3, 0x18538067, 0x114D9B74
SEEK, SEEK_POSITION, INFO, TRACKS = 0x4DBB, 0x53AC, 0x1549A966, 0x1654AE6B
ENTRY, VIDEO, COLOUR, VOID, CRC = 0xAE, 0xE0, 0x55B0, 0xEC, 0xBF
PIXEL_WIDTH, PIXEL_HEIGHT = 0xB0, 0xBA
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
MAX_CLL, MAX_FALL, MASTERING = 0x55BC, 0x55BD, 0x55D0
FIRST_CHROMATICITY, LUMINANCE_MAX, LUMINANCE_MIN = 0x55D1, 0x55D9, 0x55DA
AS_RATIO = 3  # unit of display width and height: only their ratio counts

Element = tuple[int, bytes]


def describe_track(
    path: Path,
    track: int,
    sar: Fraction,
    mastering: MasteringDisplay | None,
    light: tuple[int, int] | None,
) -> bool:
    """Write the aspect and HDR description of track number `track` (from 0) into its header.

    Returns False, and leaves the file as it was, where there is no room.
    """
    with path.open("r+b") as file:
        body, parts = _front(file)
        if [identifier for identifier, *_ in parts] != [SEEK_HEAD, VOID, INFO, TRACKS]:
            return False
        contents = [file.seek(start) and file.read(size) for _, start, size in parts]
        entries = [e for e in _elements(contents[3]) if e[0] not in (VOID, CRC)]
        places = [place for place, (identifier, _) in enumerate(entries) if identifier == ENTRY]
        place = places[track]
        entries[place] = (ENTRY, _described(entries[place][1], sar, mastering, light))
        end = parts[3][1] + parts[3][2]
        tracks = _element(TRACKS, _joined(entries))
        info = _element(INFO, contents[2])
        moved = {INFO: end - len(tracks) - len(info) - body, TRACKS: end - len(tracks) - body}
        head = _element(SEEK_HEAD, _moved(contents[0], moved))
        room = end - len(tracks) - len(info) - body - len(head)
        if room == 1 or room < 0:
            return False
        file.seek(body)
        file.write(head + _void(room) + info + tracks)
        file.flush()
        os.fsync(file.fileno())
    return True


def _front(file) -> tuple[int, list[tuple[int, int, int]]]:
    """Where the segment's content begins; (identifier, start, size) of its first four elements."""
    data = file.read(64)
    _, size, length = _header(data)
    segment = length + size
    _, _, length = _header(data[segment:])
    body = position = segment + length
    parts = []
    for _ in range(4):
        file.seek(position)
        identifier, size, length = _header(file.read(12))
        parts.append((identifier, position + length, size))
        position += length + size
    return body, parts


def _described(entry: bytes, sar: Fraction, mastering, light) -> bytes:
    parts = [e for e in _elements(entry) if e[0] not in (VOID, CRC)]
    place = next(place for place, (identifier, _) in enumerate(parts) if identifier == VIDEO)
    video = dict(_elements(parts[place][1]))
    if sar != 1:
        size = (
            int.from_bytes(video[PIXEL_WIDTH], "big"),
            int.from_bytes(video[PIXEL_HEIGHT], "big"),
        )
        video |= _display(*size, sar)
    colour = dict(_elements(video.get(COLOUR, b"")))
    if light is not None:
        colour |= {MAX_CLL: _number(light[0]), MAX_FALL: _number(light[1])}
    if mastering is not None:
        points = (*mastering.red, *mastering.green, *mastering.blue, *mastering.white)
        values = {FIRST_CHROMATICITY + i: value / CHROMATICITY for i, value in enumerate(points)}
        values[LUMINANCE_MIN] = mastering.luminance[0] / LUMINANCE
        values[LUMINANCE_MAX] = mastering.luminance[1] / LUMINANCE
        colour[MASTERING] = _joined((key, struct.pack(">f", v)) for key, v in values.items())
    if colour:
        video[COLOUR] = _joined(colour.items())
    parts[place] = (VIDEO, _joined(video.items()))
    return _joined(parts)


def _display(width: int, height: int, sar: Fraction) -> dict[int, bytes]:
    """The size to be shown at: in pixels where one side can stay, else as a ratio."""
    unit, shown = 0, (width * sar, Fraction(height))
    if shown[0].denominator != 1:
        shown = (Fraction(width), height / sar)
    if shown[1].denominator != 1:
        ratio = width * sar / height
        unit, shown = AS_RATIO, (Fraction(ratio.numerator), Fraction(ratio.denominator))
    return {
        DISPLAY_WIDTH: _number(int(shown[0])),
        DISPLAY_HEIGHT: _number(int(shown[1])),
        DISPLAY_UNIT: _number(unit),
    }


def _moved(seek_head: bytes, moved: dict[int, int]) -> bytes:
    """The table of places with new ones."""
    entries = []
    for identifier, content in _elements(seek_head):
        if identifier != SEEK:
            continue
        parts = list(_elements(content))
        place = moved.get(int.from_bytes(parts[0][1], "big"))
        if place is not None:
            parts[1] = (SEEK_POSITION, _number(place))
            content = _joined(parts)
        entries.append((SEEK, content))
    return _joined(entries)


def _header(data: bytes) -> tuple[int, int, int]:
    """Identifier, size of the content, and length of these two."""
    first = 9 - data[0].bit_length()
    second = 9 - data[first].bit_length()
    size = int.from_bytes(data[first : first + second], "big") & ((1 << 7 * second) - 1)
    return int.from_bytes(data[:first], "big"), size, first + second


def _elements(data: bytes) -> Iterator[Element]:
    position = 0
    while position < len(data):
        identifier, size, length = _header(data[position : position + 12])
        yield identifier, data[position + length : position + length + size]
        position += length + size


def _joined(elements) -> bytes:
    return b"".join(_element(identifier, content) for identifier, content in elements)


def _element(identifier: int, content: bytes) -> bytes:
    return _number(identifier) + _size(len(content)) + content


def _size(value: int, length: int | None = None) -> bytes:
    length = length or next(n for n in range(1, 9) if value < (1 << 7 * n) - 1)
    return (value | 1 << 7 * length).to_bytes(length, "big")


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, math.ceil(value.bit_length() / 8)), "big")


def _void(room: int) -> bytes:
    if room == 0:
        return b""
    length = 1 if room < 100 else 4
    return _number(VOID) + _size(room - 1 - length, length) + bytes(room - 1 - length)
