"""Reading and writing videos, frame folders and masks as uint8 and bool arrays."""

from cssta.video.errors import VideoError
from cssta.video.frame_folder import check_replaceable, write_frame_folder
from cssta.video.info import VideoInfo, probe
from cssta.video.mask_reader import read_masks
from cssta.video.reader import iter_frames, read_frames
from cssta.video.writer import VideoWriter, write_video

__all__ = [
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "check_replaceable",
    "iter_frames",
    "probe",
    "read_frames",
    "read_masks",
    "write_frame_folder",
    "write_video",
]
