"""Rendered streets as a live source of camera frames, for the client and for demonstrations."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from surround.render import Renderer
from surround.rig import CAMERA_IDS, CameraInfo, surround_rig
from surround.scene import Scene
from surround.towns import TOWNS, town_named
from surround.truth import Truth
from surround.weather import WEATHERS

Image = NDArray[np.uint8]

_EXAMPLE = "seed=7,town=harbour,size=640x384,fps=30"


@dataclass(frozen=True)
class SourceSpec:
    """What a source draws; `parse_spec` reads it from text.

    Attributes:
        seed: Which street.
        town: Name of the town; the default is one that training has never seen.
        weather: Name of the weather; None draws one of the town's.
        width: Image width in pixels.
        height: Image height in pixels.
        fps: Time steps per second.
        cameras: Ids of the cameras to render.
        frames: Time steps before the source ends; 0 never ends.
    """

    seed: int = 7
    town: str = "harbour"
    weather: str | None = None
    width: int = 640
    height: int = 384
    fps: float = 30.0
    cameras: tuple[str, ...] = field(default=CAMERA_IDS)
    frames: int = 0


def parse_spec(text: str) -> SourceSpec:
    """Read `key=value` pairs separated by commas, such as `seed=7,town=harbour,size=640x384,fps=30`.

    Keys: seed, town, weather, size (WIDTHxHEIGHT), fps, frames, cameras (ids joined by `+`). A ValueError names
    what is wrong and gives an example.
    """
    values: dict[str, object] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (part.strip() for part in pair.partition("="))
        try:
            if key in ("seed", "frames"):
                values[key] = int(value)
                if values[key] < 0:  # type: ignore[operator]
                    raise ValueError
            elif key == "fps":
                values[key] = float(value)
                if not 0 < float(value) <= 1000:
                    raise ValueError
            elif key == "size":
                across, down = value.lower().split("x")
                values["width"], values["height"] = int(across), int(down)
            elif key == "town":
                values[key] = town_named(value).name
            elif key == "weather":
                if value not in WEATHERS:
                    raise KeyError(f"unknown weather {value!r}; known weathers: {', '.join(WEATHERS)}")
                values[key] = value
            elif key == "cameras":
                names = tuple(value.split("+"))
                unknown = [name for name in names if name not in CAMERA_IDS]
                if unknown:
                    raise KeyError(f"unknown camera {unknown[0]!r}; known cameras: {', '.join(CAMERA_IDS)}")
                values[key] = names
            else:
                raise KeyError(f"unknown key {key!r}; known keys: seed, town, weather, size, fps, frames, cameras")
        except KeyError as error:
            raise ValueError(f"bad source {text!r}: {error.args[0]}; for example {_EXAMPLE}") from None
        except ValueError as error:
            reason = str(error) if key == "town" else f"{key}={value!r} is not a valid value"
            raise ValueError(f"bad source {text!r}: {reason}; for example {_EXAMPLE}") from None
    return SourceSpec(**values)  # type: ignore[arg-type]


class SurroundSource:
    """Six synchronised cameras driving through one street.

    Attributes:
        spec: What is drawn.
        town: The town's name; `held_out` says whether training has seen it.
        cameras: Every camera's intrinsics, and its pose in the vehicle frame (see `surround.rig`).
        truth: Ground truth of the time step that `frames` yielded last, by camera id.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        rig = surround_rig(spec.width, spec.height)
        self.cameras: tuple[CameraInfo, ...] = tuple(camera for camera in rig if camera.id in spec.cameras)
        self.town = spec.town
        self.held_out = TOWNS[spec.town].held_out
        self.truth: dict[str, Truth] = {}
        scene = Scene(spec.seed, TOWNS[spec.town], spec.weather)
        self._renderers = {camera.id: Renderer(scene, camera) for camera in self.cameras}

    def frames(self) -> Iterator[tuple[int, dict[str, Image]]]:
        """Yield (capture time in ns since the start, {camera id: image (H, W, 3) uint8 RGB}) per time step.

        All cameras of a step are captured at the same time. Nothing sleeps: pacing is the caller's.
        """
        step = 0
        while not self.spec.frames or step < self.spec.frames:
            time = step / self.spec.fps
            rendered = {name: renderer.render(time) for name, renderer in self._renderers.items()}
            self.truth = {name: frame.truth for name, frame in rendered.items()}
            yield round(time * 1e9), {name: frame.image for name, frame in rendered.items()}
            step += 1


def open_source(spec: str = "") -> SurroundSource:
    """Open a rendered street, for example `open_source("seed=7,town=harbour,size=640x384,fps=30")`.

    This is the entry point `surround` of the group `monocoque.frame_sources`. An empty text takes every default.
    """
    return SurroundSource(parse_spec(spec))
