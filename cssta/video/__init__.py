"""Reading and writing videos, frame folders and masks as uint8 and bool arrays."""

from cssta.video.assemble import assemble
from cssta.video.boxes import Box
from cssta.video.colour import Colour, from_rgb, to_rgb
from cssta.video.compose import Composer
from cssta.video.encoding import choose_encoding
from cssta.video.errors import VideoError
from cssta.video.frame_folder import check_replaceable, write_frame_folder, write_picture
from cssta.video.info import VideoInfo, probe
from cssta.video.mask_reader import read_masks
from cssta.video.mask_source import MaskSource, MaskSpec, open_masks
from cssta.video.reader import iter_frames, read_frames
from cssta.video.segment_writer import Encoding, SegmentWriter
from cssta.video.source import SourceFrame, SourceInfo, VideoSource, open_source
from cssta.video.verify import verify
from cssta.video.writer import VideoWriter, write_video

__all__ = [
    "Box",
    "Colour",
    "Composer",
    "Encoding",
    "MaskSource",
    "MaskSpec",
    "SegmentWriter",
    "SourceFrame",
    "SourceInfo",
    "VideoError",
    "VideoInfo",
    "VideoSource",
    "VideoWriter",
    "assemble",
    "check_replaceable",
    "choose_encoding",
    "from_rgb",
    "iter_frames",
    "open_masks",
    "open_source",
    "probe",
    "read_frames",
    "read_masks",
    "to_rgb",
    "verify",
    "write_frame_folder",
    "write_picture",
    "write_video",
]
