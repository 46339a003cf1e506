import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from client.errors import SourceError
from client.frames import Camera, Intrinsics, Mounting
from client.producer import Producer, Recipe, paced
from client.sources import open_source
from client.sources.plugin import PluginSource


def image(shade: int, width: int = 32, height: int = 16) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def test_a_folder_of_images_is_one_camera_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write(tmp_path / "front" / f"{number:03d}.png", image(10 * number))
    (tmp_path / "front" / "notes.txt").write_text("not an image")
    source = open_source(str(tmp_path / "front"))
    assert [(c.id, c.width, c.height) for c in source.cameras] == [("front", 32, 16)]
    assert [int(step["front"][0, 0, 0]) for step in source.frames()] == [0, 10, 20]


def test_subfolders_are_cameras_and_their_rig_is_read(tmp_path: Path) -> None:
    write(tmp_path / "left" / "0.png", image(1))
    write(tmp_path / "left" / "1.png", image(2))
    write(tmp_path / "right" / "0.png", image(3, 64, 32))
    optics = {"fx_px": 30.0, "fy_px": 30.0, "cx_px": 16.0, "cy_px": 8.0}
    rig = {"left": {"intrinsics": optics, "mounting": {"x_m": 1.5, "yaw_rad": 0.3}}}
    (tmp_path / "cameras.json").write_text(json.dumps(rig))
    source = open_source(str(tmp_path))
    left, right = source.cameras
    assert (left.intrinsics, left.mounting) == (Intrinsics(**optics), Mounting(x_m=1.5, yaw_rad=0.3))
    assert (right.id, right.width, right.intrinsics) == ("right", 64, None)
    assert [sorted(step) for step in source.frames()] == [["left", "right"], ["left"]]


def test_colours_come_as_rgb(tmp_path: Path) -> None:
    pixels = image(0)
    pixels[..., 2] = 255  # red, as OpenCV writes it
    write(tmp_path / "cam" / "0.png", pixels)
    assert next(iter(open_source(str(tmp_path / "cam")).frames()))["cam"][0, 0].tolist() == [255, 0, 0]


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    write(tmp_path / "0.jpg", image(0))
    data = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(data[:20])
    (tmp_path / "2.jpg").touch()
    frames = open_source(str(tmp_path)).frames()
    next(iter(frames))
    with pytest.raises(SourceError, match=r"1\.jpg \(20 bytes\) is not an image"):
        next(iter(frames))
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(SourceError, match=r"2\.jpg \(0 bytes\)"):
        open_source(str(tmp_path))


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path / "0.png", image(0))
    write(tmp_path / "1.png", image(0, 64, 32))
    with pytest.raises(SourceError, match=r"1\.png is 64x32, the first image of its camera is 32x16"):
        list(open_source(str(tmp_path)).frames())


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot read"), ("[]", "is not"), ('{"cam": {"intrinsics": {"focal": 3}}}', "camera cam: .*focal")],
)
def test_a_rig_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "cam" / "0.png", image(0))
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path))


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images in .*\n.*jpg"):
        open_source(str(tmp_path))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "my drive.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
    for shade in range(0, 250, 25):
        writer.write(image(shade, 64, 48))
    writer.release()
    return path


def test_a_video_file_is_a_camera_with_its_own_rate(video: Path) -> None:
    source = open_source(str(video))
    assert source.cameras == (Camera("my_drive", 64, 48, period_ns=40_000_000),)
    shades = [int(step["my_drive"].mean()) for step in source.frames()]
    assert len(shades) == 10
    assert all(abs(shade - 25 * index) < 8 for index, shade in enumerate(shades))


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"drive\.mp4 \(7 bytes\) is not a video"):
        open_source(str(tmp_path / "drive.mp4"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/thing", "is no file, no folder, and names no source\n.*v4l2:/dev/videoN"),
        ("v4l2:/dev/video99", "no camera at /dev/video99"),
        ("v4l2:", r"no camera at \(nothing\)"),
        ("v4l2:/dev/null", "cannot be opened as a V4L2 camera"),
    ],
)
def test_a_source_that_does_not_exist(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(spec)


def test_gstreamer_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SourceError, match=r"apt-get install gstreamer1\.0-tools"):
        open_source("gst:videotestsrc")


needs_gstreamer = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="gst-launch-1.0 is not installed")


@needs_gstreamer
def test_a_gstreamer_pipeline_gives_its_frames_whole_also_where_rows_are_padded() -> None:
    caps = "video/x-raw,width=42,height=20,framerate=100/1"
    source = open_source(f"gst:videotestsrc num-buffers=3 pattern=red ! {caps}")
    assert source.cameras == (Camera("gst", 42, 20, period_ns=10_000_000),)
    frames = [step["gst"] for step in source.frames()]
    assert len(frames) == 3
    for frame in frames:
        assert frame.shape == (20, 42, 3)
        assert (frame[..., 0] > 250).all()
        assert (frame[..., 1:] < 5).all()


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("nosuchelement", "nosuchelement"),
        ("", "needs a pipeline"),
        ("a 'b", "cannot read"),
        ("fakesrc", "does not run"),
    ],
)
def test_a_pipeline_that_does_not_run(pipeline: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.sources.gstreamer.START_SECONDS", 2.0)  # `fakesrc` fails at once, or never starts
    with pytest.raises(SourceError, match=message):
        open_source(f"gst:{pipeline}")


def factory(options: str) -> SimpleNamespace:
    """A source as another package would provide it."""
    if options != "fps=20":
        raise ValueError(f"no option {options!r}")
    camera = SimpleNamespace(
        id="front", width=8, height=4, fx=7.0, fy=7.0, cx=4.0, cy=2.0, position=(1.0, 0.0, 1.5),
        yaw=0.1, pitch=0.2, roll=0.0,
    )  # fmt: skip
    return SimpleNamespace(cameras=(camera,), frames=lambda: iter([(0, {"front": image(9, 8, 4)})]))


def test_another_package_may_provide_a_source() -> None:
    entry = EntryPoint("mine", f"{__name__}:factory", "monocoque.frame_sources")
    source = PluginSource(entry, "", fps=20)
    assert source.cameras == PluginSource(entry, "fps=20", fps=10).cameras
    assert source.cameras[0].period_ns == 50_000_000
    assert source.cameras[0].intrinsics == Intrinsics(7.0, 7.0, 4.0, 2.0)
    assert source.cameras[0].mounting == Mounting(1.0, 0.0, 1.5, 0.1, 0.2, 0.0)
    assert [step["front"].shape for step in source.frames()] == [(4, 8, 3)]
    with pytest.raises(SourceError, match="mine: no option 'seed=x,fps=20'"):
        PluginSource(entry, "seed=x", fps=20)
    with pytest.raises(SourceError, match="cannot be loaded"):
        PluginSource(EntryPoint("mine", "no_such_module:factory", "monocoque.frame_sources"), "", fps=20)


# -- the process that produces them ------------------------------------------------------------------------------------


def test_a_name_means_its_source_also_where_a_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "surround" / "0.png", image(1))
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_source("surround"), PluginSource)
    assert [camera.id for camera in open_source("./surround").cameras] == ["surround"]


def test_a_producer_gives_encoded_frames_and_their_images(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "a" / f"{number}.png", image(number))
        write(tmp_path / "b" / f"{number}.png", image(100 + number))
    with Producer(Recipe(str(tmp_path), "rgb8", fps=0, keep_images=True)) as producer:
        assert [(camera.id, camera.encoding) for camera in producer.cameras] == [("a", "rgb8"), ("b", "rgb8")]
        steps = []
        while (step := producer.next_step()) is not None:
            steps.append(step)
    assert [[made.camera_id for made in step] for step in steps] == [["a", "b"]] * 3
    assert [int(step[1].pixels[0, 0, 0]) for step in steps] == [100, 101, 102]
    for step in steps:
        assert step[0].image is not None
        assert step[0].capture_time_ns == step[1].capture_time_ns


def test_a_producer_passes_on_what_went_wrong(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="names no source"), Producer(Recipe("no/such")):
        pass
    write(tmp_path / "0.png", image(0))
    (tmp_path / "1.png").write_bytes(b"broken")
    with Producer(Recipe(str(tmp_path), fps=0)) as producer:
        assert producer.next_step() is not None
        with pytest.raises(SourceError, match=r"1\.png"):
            producer.next_step()


def test_a_producer_that_is_left_in_the_middle_ends(tmp_path: Path) -> None:
    write(tmp_path / "0.png", image(0))
    with Producer(Recipe(str(tmp_path), fps=0, loop=True)) as producer:
        producer.next_step()
        process = producer._process
    assert process.returncode is not None
    assert producer.next_step() is None


class Clock:
    """Time that passes only by sleeping and by work."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def test_frames_are_paced_and_a_late_one_is_not_made_up_for_by_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("client.producer.time", clock)
    work_ms = [1, 1, 350, 1, 1, 1]

    class Slow:
        cameras = (Camera("a", 8, 8),)
        is_live = False

        def frames(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            for milliseconds in work_ms:
                clock.now_ns += milliseconds * 1_000_000
                yield {}

    slow = Slow()
    times = [clock.now_ns / 1e6 for _ in paced(slow, Recipe("", fps=10), slow.frames)]
    gaps = np.diff(times)
    assert gaps[0] == pytest.approx(99, abs=2)
    assert gaps[1] == pytest.approx(350, abs=2)
    assert (gaps[2:] > 98).all(), gaps


def test_a_name_means_the_same_wherever_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "surround" / "0.png", image(0))
    monkeypatch.chdir(tmp_path)
    named = open_source("surround:size=64x48,cameras=front_wide+rear_left", fps=20)
    assert [(c.id, c.width, c.period_ns) for c in named.cameras] == [
        ("front_wide", 64, 50_000_000), ("rear_left", 64, 50_000_000),
    ]  # fmt: skip
    assert next(iter(named.frames()))["rear_left"].shape == (48, 64, 3)
    assert [c.id for c in open_source("./surround").cameras] == ["surround"]


def write_video(path: Path, codec: str, frames: int = 8, bframes: int = 2) -> None:
    """Frames of rising brightness; every fifth is a keyframe."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 5, bframes
        stream.codec_context.options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(image(20 * number, 64, 48), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def test_a_folder_of_video_files_has_a_camera_for_each(tmp_path: Path) -> None:
    write_video(tmp_path / "rear.mp4", "libx264", frames=2)
    write_video(tmp_path / "front.mp4", "libx264", frames=3)
    source = open_source(str(tmp_path))
    assert [(c.id, c.width, c.height, c.period_ns) for c in source.cameras] == [
        ("front", 64, 48, 40_000_000),
        ("rear", 64, 48, 40_000_000),
    ]
    assert [sorted(step) for step in source.frames()] == [["front", "rear"], ["front", "rear"], ["front"]]


@pytest.mark.parametrize(("codec", "encoding"), [("libx264", "h264"), ("libx265", "h265")])
def test_access_units_leave_a_file_as_they_are(tmp_path: Path, codec: str, encoding: Any) -> None:
    import av

    write_video(tmp_path / "front.mp4", codec)
    with Producer(Recipe(str(tmp_path / "front.mp4"), encoding=encoding, fps=0)) as producer:
        assert [camera.encoding for camera in producer.cameras] == [encoding]
        steps = []
        while (step := producer.next_step()) is not None:
            steps.append(step[0])
    assert len(steps) == 8
    decoder = av.CodecContext.create({"h264": "h264", "h265": "hevc"}[encoding], "r")
    pictures = []
    for made in steps:
        pictures += decoder.decode(av.Packet(made.pixels.tobytes()))
    pictures += decoder.decode(None)
    shades = [float(picture.to_ndarray(format="rgb24").mean()) for picture in pictures]
    assert shades == pytest.approx([20.0 * number for number in range(8)], abs=4)
    assert {made.image is None for made in steps} == {True}


def test_other_sources_are_encoded_as_video(tmp_path: Path) -> None:
    write_video(tmp_path / "front.mp4", "libx264", frames=3)
    with Producer(Recipe(str(tmp_path / "front.mp4"), encoding="h265", fps=0)) as producer:
        made = producer.next_step()
    assert made is not None
    assert bytes(made[0].pixels[:4]) == b"\x00\x00\x00\x01"
