import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import client
from client.frames import ENCODINGS, Encoding
from client.geometry import COMPRESSED_START, check_camera, checked_pixels, frame_shape

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
IMAGE = np.asarray(cv2.GaussianBlur(cv2.resize(NOISE[:6, :8], (64, 48)), (0, 0), 4))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_encode_makes_is_a_frame(encoding: Encoding) -> None:
    camera = client.Camera("a", 64, 48, encoding)
    check_camera(camera)
    pixels = client.encode(IMAGE, encoding)
    assert bytes(checked_pixels(camera, client.Frame("a", pixels))) == pixels.tobytes()
    assert bytes(checked_pixels(camera, client.Frame("a", pixels.tobytes()))) == pixels.tobytes()


@pytest.mark.parametrize(
    ("encoding", "back"),
    [("bgr8", cv2.COLOR_BGR2RGB), ("nv12", cv2.COLOR_YUV2RGB_NV12), ("yuyv", cv2.COLOR_YUV2RGB_YUY2)],
)
def test_encoded_pixels_decode_to_the_image(encoding: Encoding, back: int) -> None:
    decoded = cv2.cvtColor(client.encode(IMAGE, encoding), back)
    assert np.abs(decoded.astype(int) - IMAGE).mean() < 5


@pytest.mark.parametrize(("encoding", "limit"), [("jpeg", 5.0), ("png", 0.0)])
def test_files_decode_to_the_image(encoding: Encoding, limit: float) -> None:
    decoded = cv2.imdecode(client.encode(IMAGE, encoding), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - IMAGE).mean() <= limit


raw = st.sampled_from([encoding for encoding in ENCODINGS if encoding not in COMPRESSED_START])


@given(encoding=raw, width=st.integers(1, 20), height=st.integers(1, 20), change=st.integers(-3, 3))
def test_only_the_exact_number_of_bytes_is_accepted(encoding: Encoding, width: int, height: int, change: int) -> None:
    camera = client.Camera("a", 2 * width, 2 * height, encoding)
    exact = int(np.prod(frame_shape(encoding, camera.width, camera.height)))
    frame = client.Frame("a", bytes(max(0, exact + change)))
    if change == 0:
        assert len(checked_pixels(camera, frame)) == exact
    else:
        with pytest.raises(client.FrameInvalid, match="bytes, but"):
            checked_pixels(camera, frame)


def test_padded_rows_need_their_stride() -> None:
    camera = client.Camera("a", 10, 4, "gray8")
    assert len(checked_pixels(camera, client.Frame("a", bytes(64), stride_bytes=16))) == 64
    with pytest.raises(client.FrameInvalid, match="stride 8 is shorter than a row of 10"):
        checked_pixels(camera, client.Frame("a", bytes(32), stride_bytes=8))


def test_an_array_view_is_laid_out_anew() -> None:
    camera = client.Camera("a", 64, 48, "rgb8")
    flipped = IMAGE[:, ::-1]
    assert bytes(checked_pixels(camera, client.Frame("a", flipped))) == flipped.tobytes()


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (client.Camera("", 4, 4), "camera id ''"),
        (client.Camera("a b", 4, 4), "camera id 'a b'"),
        (client.Camera("a" * 65, 4, 4), "is not 1 to 64"),
        (client.Camera("a", 0, 4), "size 0x4 has no pixels"),
        (client.Camera("a", 5, 4, "nv12"), "even sizes"),
        (client.Camera("a", 5, 4, "yuyv"), "even width"),
        (client.Camera("a", 6, 3, "bayer_rggb12p"), "even sizes"),
        (client.Camera("a", 4, 4, "gif"), "'gif' is not one of jpeg"),  # type: ignore[arg-type]
    ],
)
def test_a_camera_that_no_server_takes(camera: client.Camera, message: str) -> None:
    with pytest.raises(client.FrameInvalid, match=re.escape(message)):
        check_camera(camera)


@pytest.mark.parametrize(
    ("encoding", "frame", "message"),
    [
        ("jpeg", client.Frame("a", IMAGE), "client.encode(image, 'jpeg')"),
        ("jpeg", client.Frame("a", b"GIF89a"), "do not begin like a JPEG file"),
        ("png", client.Frame("a", b""), "0 bytes that do not begin like a PNG file"),
        ("rgb8", client.Frame("a", IMAGE[:10]), "shape (10, 64, 3), 64x48 rgb8 has (48, 64, 3)"),
        ("rgb8", client.Frame("a", IMAGE.astype(np.float32)), "float32"),  # type: ignore[arg-type]
        ("rgb8", client.Frame("a", IMAGE, capture_time_ns=2**63), "nanoseconds"),
        ("rgb8", client.Frame("a", IMAGE, max_age_ns=0), "positive age"),
    ],
)
def test_a_frame_that_no_server_takes(encoding: Encoding, frame: client.Frame, message: str) -> None:
    with pytest.raises(client.FrameInvalid, match=re.escape(message)):
        checked_pixels(client.Camera("a", 64, 48, encoding), frame)


def test_only_rgb_images_are_encoded() -> None:
    with pytest.raises(client.FrameInvalid, match="an image is"):
        client.encode(IMAGE[..., 0], "jpeg")
    with pytest.raises(client.FrameInvalid, match="even sizes"):
        client.encode(IMAGE[:47], "nv12")
