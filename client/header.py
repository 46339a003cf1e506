"""A frame's header on the wire."""

from __future__ import annotations

from client.frames import Camera, Frame, encoding_to_proto
from protos.monocoque.v1 import camera_pb2

_COLOR_MATRIX = {"bt601": camera_pb2.COLOR_MATRIX_BT601, "bt709": camera_pb2.COLOR_MATRIX_BT709}
_COLOR_RANGE = {"full": camera_pb2.COLOR_RANGE_FULL, "limited": camera_pb2.COLOR_RANGE_LIMITED}


def frame_header(
    camera: Camera, frame: Frame, sequence: int, capture_time_ns: int, client_dropped: int
) -> camera_pb2.FrameHeader:
    """Everything about a frame but its pixels and its send time.

    Args:
        camera: The camera that took it.
        frame: The frame, already checked against the camera.
        sequence: Its number.
        capture_time_ns: In the stream's clock.
        client_dropped: Frames of this camera dropped since its last sent one.
    """
    return camera_pb2.FrameHeader(
        camera_id=camera.id,
        sequence=sequence,
        capture_time_ns=capture_time_ns,
        encoding=encoding_to_proto(camera.encoding),
        width=camera.width,
        height=camera.height,
        stride_bytes=frame.stride_bytes,
        color_matrix=_COLOR_MATRIX[frame.color_matrix] if frame.color_matrix else camera_pb2.COLOR_MATRIX_UNSPECIFIED,
        color_range=_COLOR_RANGE[frame.color_range] if frame.color_range else camera_pb2.COLOR_RANGE_UNSPECIFIED,
        max_age_ns=frame.max_age_ns or 0,
        client_dropped=client_dropped,
    )
