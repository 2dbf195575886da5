"""The streams of an output: the video as segments have it, and copies of the source's others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import av
from av.stream import Disposition

from cssta.video.segment_writer import Encoding

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

    from cssta.video.assemble import Timeline
    from cssta.video.source import SourceInfo

# Written anew by every container, or about the old one.
OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"}
OWN_TAGS |= {"duration", "bps", "number_of_frames", "number_of_bytes"}


def other_streams(source: InputContainer, info: SourceInfo) -> list[av.stream.Stream]:
    """The streams that an output should carry beside the video, in order."""
    return [
        stream
        for stream in source.streams
        if stream.index != info.stream and not is_own_track(source, stream)
    ]


def is_own_track(source: InputContainer, stream: av.stream.Stream) -> bool:
    """A track in which mp4 and mov keep chapters or the timecode; it is written anew from these."""
    return _is_timecode_track(source, stream) or _is_chapter_track(source, stream)


def timecode(source: InputContainer) -> str | None:
    """The time of day, or of the tape, at which the video starts."""
    tags = (tag for stream in source.streams for tag in stream.metadata.items())
    return next((code for key, code in tags if key.lower() == "timecode"), None)


def _is_timecode_track(source: InputContainer, stream: av.stream.Stream) -> bool:
    return (
        stream.type == "data"
        and "mov" in source.format.name
        and stream.codec_context is None
        and "timecode" in stream.metadata
    )


def _is_chapter_track(source: InputContainer, stream: av.stream.Stream) -> bool:
    if stream.type != "data" or "mov" not in source.format.name:
        return False
    chapters = source.chapters()
    starts = {round(float(entry.timestamp * stream.time_base), 2) for entry in stream.index_entries}
    told = {round(float(chapter["start"] * chapter["time_base"]), 2) for chapter in chapters}
    # One more stands for the time before the first chapter.
    return bool(chapters) and told <= starts and len(starts) <= len(told) + 1


def add_streams(
    output: OutputContainer,
    source: InputContainer | None,
    template: av.VideoStream,
    info: SourceInfo,
    encoding: Encoding,
    times: Timeline,
) -> tuple[av.VideoStream, dict[int, av.stream.Stream]]:
    """The output's video stream like `template`, and {number in the source: copy} of the others."""
    if source is None:
        video = output.add_stream_from_template(template, opaque=True)
        _describe(video, encoding, times, info)
        return video, {}
    video, copies = None, {}
    others = {stream.index for stream in other_streams(source, info)} - set(encoding.dropped)
    for stream in source.streams:
        if stream.index == info.stream:
            video = copy = output.add_stream_from_template(template, opaque=True)
            _describe(video, encoding, times, info)
            if code := timecode(source):
                video.metadata["timecode"] = code
        elif stream.index in others:
            copy = copies[stream.index] = output.add_stream_from_template(stream, opaque=True)
        else:
            continue
        copy.metadata.update(_kept_tags(stream.metadata))
        if "mov" in source.format.name and "name" in stream.metadata:
            copy.metadata.setdefault("title", stream.metadata["name"])  # written so, read as name
        copy.disposition = stream.disposition
    output.metadata.update(_kept_tags(source.metadata))
    chapters = source.chapters()
    for chapter in chapters:
        shift = round(times.origin / chapter["time_base"])
        chapter["start"], chapter["end"] = chapter["start"] - shift, chapter["end"] - shift
    if chapters:
        output.set_chapters(chapters)
    return video, copies


def track_number(output: OutputContainer, video: av.VideoStream) -> int:
    """Which of Matroska's tracks the video is; attachments, and so cover pictures, are none."""
    return sum(
        stream.type != "attachment" and not stream.disposition & Disposition.attached_pic
        for stream in output.streams
        if stream.index < video.index
    )


def _kept_tags(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower().split("-")[0] not in OWN_TAGS and not key.startswith("_STATISTICS")
    }


def _describe(video: av.VideoStream, encoding: Encoding, times: Timeline, info: SourceInfo) -> None:
    context = video.codec_context  # which has the colour tags from the segment
    video.time_base = times.time_base
    context.sample_aspect_ratio = encoding.sar
    gaps = {later - earlier for earlier, later in itertools.pairwise(times.shown)}
    steady = max(gaps, default=0) - min(gaps, default=0) <= 1
    context.framerate = info.fps if steady else 0  # a rate would be taken for every frame's
    if encoding.tag:
        context.codec_tag = encoding.tag
    video.set_display_matrix(encoding.matrix)
