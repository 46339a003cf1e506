"""What the network takes and gives: constants shared by training, evaluation, tests and bundles."""

LABELS: tuple[str, ...] = ("car", "truck", "cyclist", "pedestrian")
"""Class names by index. `truck` covers lorries and buses; `cyclist` is rider and bicycle together."""

INPUT_SIZE: tuple[int, int] = (640, 384)
"""(width, height) of the network input in pixels."""

MEAN: tuple[float, float, float] = (116.0, 118.0, 122.0)
"""Per-channel mean on the 0..255 scale, RGB."""

STD: tuple[float, float, float] = (58.0, 58.0, 60.0)
"""Per-channel standard deviation on the 0..255 scale, RGB."""

COLOR = "rgb"
"""Channel order of the network input."""

REFERENCE_FOCAL_PX = 400.0
"""Focal length, in network-input pixels, for which the network states distances.

The network cannot see a camera's focal length, so it answers with *virtual depth* (Cube R-CNN,
arXiv 2207.10660): the distance at which a camera of this focal length would see the object as large.
`distance = virtual * fx / REFERENCE_FOCAL_PX`, with `fx` in network-input pixels.
"""

TOP_K = 64
"""Detections per frame that the graph returns, best first."""

STRIDE = 8
"""Network-input pixels per heatmap cell."""

MIN_BOX_HEIGHT_PX = 12.0
"""Lower boxes (in network-input pixels) are ignored: neither a hit nor a false alarm."""

MIN_VISIBLE = 0.4
"""Objects of which a smaller share of the silhouette is visible are ignored."""

MAX_DISTANCE_M = 70.0
"""Objects beyond this forward depth are ignored."""

MIN_DISTANCE_M = 1.0
"""Objects whose centre is nearer than this forward depth are ignored."""

DISTANCE_BANDS_M: tuple[tuple[float, float], ...] = ((0.0, 15.0), (15.0, 30.0), (30.0, 70.0))
"""Bands of forward depth for which average precision is reported separately."""
