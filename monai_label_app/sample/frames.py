"""A procedural renderer of endoscopy frames: what the sample model learns from and the sample study shows.

Exposure, hue, lumen, folds, highlights and field of view are drawn alike for every class, so that only the finding
itself tells the class: a model that looks anywhere else is wrong often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
"""One value a pixel, (H, W), or a colour a pixel, (H, W, 3); colours are linear RGB with white at 1."""

STUDY = (
    ("normal-cecum", 900_001),
    ("polyps", 900_003),
    ("polyps", 900_007),
    ("dyed-lifted-polyps", 900_002),
    ("dyed-resection-margins", 900_000),
    ("polyps", 900_009),
    ("ulcerative-colitis", 900_004),
    ("polyps", 900_023),
)
"""Label and seed of the stills of the sample study, in the order of the examination.

Those of which the demonstration model is right: of fourteen synthetic frames it takes one for something else.
"""

_OPENINGS = frozenset({"esophagitis", "normal-pylorus", "normal-z-line"})
"""Classes whose finding surrounds the lumen, so that a second one would be absurd."""

_NEAREST_LUMEN = (0.1, 1.4)
"""Least distance of the background's lumen from the centre, for the other classes and for those of _OPENINGS."""

_MUCOSA = np.array([[0.84, 0.38, 0.31], [0.86, 0.36, 0.17], [0.78, 0.25, 0.18], [0.84, 0.46, 0.38]], np.float32)
_BLUE = np.array([0.13, 0.33, 0.42], np.float32)


@dataclass(frozen=True)
class _Canvas:
    """Where to draw: coordinates in half frame heights from the centre, the field of view (0 to 1), the randomness."""

    rng: np.random.Generator
    x: Field
    y: Field
    view: Field
    reach: tuple[float, float]

    def noise(self, cells: int) -> Field:
        """Smooth noise of about unit variance with features of 1 / cells of the width."""
        height, width = self.x.shape
        rows = max(2, round(cells * 5 / 6))
        grid = self.rng.standard_normal((rows + 3, cells + 3)).astype(np.float32) * 1.9
        return _spline(height, rows) @ grid @ _spline(width, cells).T

    def place(self, size: float) -> tuple[float, float]:
        """A random place at which a thing of this radius is in view for the most part."""
        angle, far = self.rng.uniform(0, 2 * np.pi), np.sqrt(self.rng.uniform(0, 1))
        room = [max(0.1, side - 0.75 * size) * far for side in self.reach]
        return float(room[0] * np.cos(angle)), float(room[1] * np.sin(angle))

    def polar(self, centre: tuple[float, float], stretch: float, ragged: float, cells: int) -> tuple[Field, Field]:
        """Distance from and angle about a centre, in an ellipse at a random tilt with a ragged outline."""
        tilt = self.rng.uniform(0, np.pi)
        dx, dy = self.x - centre[0], self.y - centre[1]
        u = (np.cos(tilt) * dx + np.sin(tilt) * dy) * stretch
        v = (np.cos(tilt) * dy - np.sin(tilt) * dx) / stretch
        return np.hypot(u, v) * (1 + ragged * self.noise(cells)), np.arctan2(v, u)


@dataclass(frozen=True)
class _Scene:
    """What is drawn: the colour of the surface, the light on it, its highlights, and the finding."""

    colour: Field
    light: Field
    gloss: Field
    mask: NDArray[np.bool_]


def render(label: str, seed: int, height: int = 480, width: int = 576) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one frame.

    Args:
        label: a Kvasir v2 class.
        seed: the same seed gives the same frame; at another size the same scene.
        height: of the frame, in pixels.
        width: of the frame, in pixels.

    Returns:
        The frame, RGB (H, W, 3), and where the finding is that makes the class, (H, W).

    Raises:
        ValueError: no such class.
    """
    if label not in _FINDINGS:
        raise ValueError(f"there is no class {label!r}; known are {', '.join(sorted(_FINDINGS))}")
    canvas = _canvas(np.random.default_rng((seed, sorted(_FINDINGS).index(label))), height, width)
    scene = _FINDINGS[label](canvas, _mucosa(canvas, _NEAREST_LUMEN[label in _OPENINGS]))
    return _expose(canvas, scene), scene.mask & (canvas.view > 0.5)


def study_frames() -> list[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Draw the stills of the sample study: label, frame (480, 576, 3) and mask (480, 576) of each."""
    return [(label, *render(label, seed)) for label, seed in STUDY]


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Field:
    """The matrix that samples a uniform cubic B-spline of some cells at every pixel of an axis."""
    position = (np.arange(size) + 0.5) / size * cells
    first = np.minimum(position.astype(int), cells - 1)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    matrix = np.zeros((size, cells + 3), np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(4), weights.astype(np.float32), 1)
    return matrix


def _step(values: Field, low: float, high: float) -> Field:
    """0 below low, 1 above high (or the reverse if low > high), smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _rgb(red: float, green: float, blue: float) -> Field:
    return np.array([red, green, blue], np.float32)


def _mix(base: Field, other: Field, share: Field) -> Field:
    return base + (other - base) * share[..., None]


def _canvas(rng: np.random.Generator, height: int, width: int) -> _Canvas:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x + 0.5 - width / 2) / (height / 2), (y + 0.5 - height / 2) / (height / 2)
    half = width / height
    reach = rng.uniform(0.72, 1.0) * half, rng.uniform(0.88, 1.05)
    shift = rng.uniform(-1, 1) * max(0.0, half - reach[0])
    u, v = np.abs(x - shift) / reach[0], np.abs(y) / reach[1]
    shape = rng.integers(3)
    if shape == 0:
        edge = np.maximum(np.maximum(u, v), (u + v) / rng.uniform(1.45, 1.75))
    else:
        power = rng.uniform(2.2, 3) if shape == 1 else rng.uniform(4, 9)
        edge = (u**power + v**power) ** (1 / power)
    x = x - np.float32(shift)
    return _Canvas(rng, x, y, _step(edge, 1.0, 0.985), reach)


def _mucosa(canvas: _Canvas, nearest: float) -> _Scene:
    """The wall of any organ: a lumen no nearer than this to the centre, folds about it, vessels or none, highlights."""
    rng = canvas.rng
    far = rng.uniform(nearest, 2.1)
    angle = rng.uniform(0, 2 * np.pi)
    lumen = float(far * np.cos(angle)), float(far * np.sin(angle))
    radius, _ = canvas.polar(lumen, rng.uniform(0.85, 1.2), 0.07, 4)
    light = 0.05 + 0.95 * (1 - np.exp(-((radius / rng.uniform(0.15, 0.6)) ** 1.6)))
    light *= _folds(canvas, radius)
    light *= np.exp(-rng.uniform(0.3, 0.9) * (canvas.x**2 + canvas.y**2))
    light *= 1 + 0.12 * canvas.noise(3) + 0.1 * canvas.noise(7) + 0.025 * canvas.noise(30) + 0.02 * canvas.noise(110)
    tone = rng.dirichlet(np.full(len(_MUCOSA), 0.6)) @ _MUCOSA
    colour = tone * (1 + 0.07 * canvas.noise(4)[..., None] * _rgb(0.3, 1, 1.2))
    colour *= 1 + 0.035 * canvas.noise(60)[..., None] * _rgb(0.3, 1, 1)
    colour *= 1 - rng.uniform(0, 0.65) * _vessels(canvas)[..., None] * _rgb(0.35, 1, 0.9)
    wet = canvas.noise(rng.integers(30, 85)) + 0.9 * canvas.noise(5)
    gloss = _step(wet, *(rng.uniform(2.4, 3.8) + np.array([0, 0.3]))) * _step(light, 0.35, 0.7)
    return _Scene(colour.astype(np.float32), light, gloss, np.zeros(canvas.x.shape, bool))


def _folds(canvas: _Canvas, radius: Field) -> Field:
    """Light on crescents about the lumen: a bright rim, and a shadow on the wall behind it."""
    rng = canvas.rng
    phase = (rng.uniform(1.4, 3.2) * np.log(radius + 0.08) + 0.35 * canvas.noise(3) + rng.uniform()) % 1
    strength = rng.uniform(0.1, 1) * _step(canvas.noise(3), -0.7, 0.8)
    return 1 + strength * (0.3 * np.exp(-phase / 0.2) - 0.7 * np.exp((phase - 1) / 0.33))


def _vessels(canvas: _Canvas) -> Field:
    """Branching lines: where smooth noise changes its sign."""
    lines = np.zeros(canvas.x.shape, np.float32)
    for cells, thickness in ((6, 0.008), (10, 0.006), (15, 0.0045), (22, 0.0035)):
        field = canvas.noise(cells) + 0.3 * canvas.noise(3 * cells)
        slope = np.hypot(*np.gradient(field)) * (canvas.x.shape[0] / 2) + 1
        lines = np.maximum(lines, np.exp(-((field / slope / thickness) ** 2)) * _step(canvas.noise(6), 0, 1.6))
    return lines


def _dome(canvas: _Canvas, scene: _Scene, radius: Field, colour: Field, inside: Field) -> _Scene:
    """Raise a bump where radius < 1, lit from a little aside, with a shadow at its foot and its own highlights."""
    rng = canvas.rng
    side = rng.uniform(0, 2 * np.pi)
    height = np.sqrt(np.clip(1 - np.minimum(radius, 1) ** 2, 0.02, 1)) + 0.06 * canvas.noise(9)
    slope_y, slope_x = np.gradient(height)
    scale = canvas.x.shape[0] / 2 * rng.uniform(0.2, 0.36)
    normal = 1 / np.sqrt(1 + (slope_x * scale) ** 2 + (slope_y * scale) ** 2)
    away = slope_x * np.cos(side) + slope_y * np.sin(side)
    facing = np.clip(normal * (1 - 0.45 * scale * away), 0.12, 1.25)
    body = max(0.62, float((scene.light * inside).sum() / inside.sum())) * rng.uniform(1.0, 1.25)
    lee = 0.5 + 0.5 * np.tanh(4 * scale * ndimage.gaussian_filter(away, 0.02 * canvas.x.shape[0]))
    foot = 1 - rng.uniform(0.3, 0.7) * _step(radius, 1.4, 1.0) * (0.2 + 0.8 * lee)
    light = scene.light * foot * (1 - inside) + body * (0.3 + 0.7 * facing) * inside
    light *= 1 + inside * (0.05 * canvas.noise(6) + 0.04 * canvas.noise(45) + 0.04 * canvas.noise(90))
    shine = _step(facing + 0.07 * canvas.noise(28), *(rng.uniform(1.1, 1.25) + np.array([0, 0.08]))) * inside
    return replace(scene, colour=colour, light=light, gloss=np.maximum(scene.gloss * (1 - 0.7 * inside), shine))


def _bump(canvas: _Canvas) -> tuple[Field, Field]:
    """The outline of a polyp: its radius field (1 at the edge) and its inside (0 to 1)."""
    size = canvas.rng.uniform(0.145, 0.42)
    radius, angle = canvas.polar(canvas.place(size), canvas.rng.uniform(1, 1.25), 0.045, 8)
    lobes = canvas.rng.integers(2, 4)
    radius = radius / size * (1 + canvas.rng.uniform(0, 0.08) * np.sin(lobes * angle + canvas.rng.uniform(0, 6)))
    return radius, _step(radius, 1.04, 0.92)


def _polyp(canvas: _Canvas, scene: _Scene) -> _Scene:
    radius, inside = _bump(canvas)
    tint = _rgb(1.06, canvas.rng.uniform(0.7, 0.97), canvas.rng.uniform(0.72, 1.0))
    own = scene.colour.mean((0, 1)) * tint * (1 + 0.06 * canvas.noise(40)[..., None] * _rgb(0.2, 1, 1))
    colour = _mix(scene.colour, own, 0.85 * inside)
    return replace(_dome(canvas, scene, radius, colour, inside), mask=radius < 1)


def _dye(canvas: _Canvas, colour: Field, share: Field) -> Field:
    """Stain a surface blue, deeper in its grooves."""
    uneven = np.clip(0.78 + 0.16 * canvas.noise(12) + 0.1 * canvas.noise(45), 0.25, 1)
    stain = _BLUE * canvas.rng.uniform(0.85, 1.35) * (1 + 0.1 * canvas.noise(7)[..., None])
    return _mix(colour, stain, share * uneven)


def _dyed_polyp(canvas: _Canvas, scene: _Scene) -> _Scene:
    raised = _polyp(canvas, scene)
    radius = ndimage.distance_transform_edt(~raised.mask).astype(np.float32) / (canvas.x.shape[0] / 2)
    spread = canvas.rng.uniform(0.15, 0.5)
    halo = _step(radius + 0.1 * canvas.noise(6), spread * 1.5, spread * 0.6)
    over = canvas.rng.uniform(0, 0.55)
    colour = _dye(canvas, raised.colour, halo * np.where(raised.mask, over, 1.0))
    return replace(raised, colour=colour, mask=raised.mask | (halo > 0.5))


def _resection(canvas: _Canvas, scene: _Scene) -> _Scene:
    size = canvas.rng.uniform(0.16, 0.34)
    radius, _ = canvas.polar(canvas.place(size * 1.4), canvas.rng.uniform(1, 1.6), 0.17, 8)
    radius = radius / size
    margin = _step(radius + 0.12 * canvas.noise(8), canvas.rng.uniform(1.7, 2.6), 1.3)
    wound = _step(radius + 0.08 * canvas.noise(28), 1.0, 0.9)
    rim = np.exp(-(((radius - 0.98 + 0.09 * canvas.noise(24)) / 0.1) ** 2)) * _step(canvas.noise(12), -0.9, 0.7)
    bed = _rgb(0.62, 0.60, 0.55) * (1 + 0.13 * canvas.noise(20)[..., None])
    bed = _mix(bed, _BLUE * 0.9, 0.7 * _step(canvas.noise(14), 0.1, 1.2))
    bed = _mix(bed, _rgb(0.50, 0.10, 0.07), 0.8 * _step(canvas.noise(22), 1.1, 1.7))
    colour = _mix(_dye(canvas, scene.colour, margin), bed, wound)
    colour = _mix(colour, _rgb(0.92, 0.90, 0.82), 0.85 * rim)
    light = np.maximum(scene.light, 0.55 * margin) * (1 - 0.35 * _step(radius, 0.95, 0.2) * wound) * (1 + 0.25 * rim)
    return replace(scene, colour=colour, light=light, mask=(wound > 0.5) | (margin > 0.5))


def _squamous(canvas: _Canvas, scene: _Scene) -> tuple[_Scene, Field, Field]:
    """Draw pale oesophagus outside a ragged line and salmon stomach inside; give also radius (1 at it) and angle."""
    rng = canvas.rng
    size = rng.uniform(0.38, 0.7)
    centre = canvas.place(size * 1.1)
    radius, angle = canvas.polar(centre, rng.uniform(1, 1.3), 0.05, 5)
    tongues = np.sin(rng.integers(3, 7) * angle + 1.2 * canvas.noise(4))
    radius = radius / size * (1 + 0.13 * tongues + 0.09 * canvas.noise(10) + 0.03 * canvas.noise(30))
    stomach = _step(radius, 1.03, 0.97)
    tone = scene.colour.mean((0, 1))
    pale = _mix(scene.colour, tone * _rgb(1.02, 1.3, 1.4), np.full_like(radius, 0.75))
    salmon = tone * _rgb(0.95, 0.8, 0.82) * (1 + 0.05 * canvas.noise(50)[..., None])
    pinch = 1 - 0.35 * np.exp(-radius / 0.5) * (1 + np.sin(rng.integers(5, 9) * angle + 0.8 * canvas.noise(5)))
    light = scene.light * pinch * (0.12 + 0.88 * _step(radius, rng.uniform(0, 0.1), 0.4))
    return replace(scene, colour=_mix(pale, salmon, stomach), light=light), radius, angle


def _z_line(canvas: _Canvas, scene: _Scene) -> _Scene:
    scene, radius, _ = _squamous(canvas, scene)
    return replace(scene, mask=np.abs(radius - 1) < 0.15)


def _esophagitis(canvas: _Canvas, scene: _Scene) -> _Scene:
    scene, radius, angle = _squamous(canvas, scene)
    erosion = np.zeros_like(radius)
    start = canvas.rng.uniform(0, 2 * np.pi)
    breaks = canvas.rng.integers(3, 6)
    for number in range(breaks):
        bearing = start + 2 * np.pi * (number + canvas.rng.uniform(-0.25, 0.25)) / breaks
        aside = np.abs((angle - bearing + np.pi) % (2 * np.pi) - np.pi) * radius + 0.06 * canvas.noise(16)
        length = canvas.rng.uniform(0.35, 0.75)
        along = _step(np.abs(radius - 0.95 - length / 2), 0.55 * length + 0.06, 0.45 * length)
        erosion = np.maximum(erosion, along * _step(aside, canvas.rng.uniform(0.1, 0.17), 0.04))
    red = _rgb(0.66, 0.10, 0.09) * (1 + 0.12 * canvas.noise(40)[..., None])
    colour = _mix(scene.colour, red, 0.85 * erosion)
    slough = _step(erosion + 0.14 * canvas.noise(26), 1.08, 1.3)
    return replace(scene, colour=_mix(colour, _rgb(0.95, 0.85, 0.62), 0.6 * slough), mask=erosion > 0.4)


def _pylorus(canvas: _Canvas, scene: _Scene) -> _Scene:
    rng = canvas.rng
    size = rng.uniform(0.09, 0.2)
    radius, angle = canvas.polar(canvas.place(size * 2), rng.uniform(1, 1.3), 0.06, 10)
    radius = radius / size
    swirl = np.sin(rng.integers(4, 8) * angle + 0.6 * canvas.noise(4) + 0.3 * radius)
    near = np.exp(-np.maximum(radius - 1, 0) / 1.3)
    light = scene.light * (1 - near * (0.12 + 0.2 * swirl))
    light *= 1 + 0.22 * np.exp(-(((radius - 1.25) / 0.2) ** 2))
    hole = _step(radius, 1.05, 0.85)
    light *= 1 - hole * (0.97 - 0.15 * _step(radius, 0.9, 0.3) * rng.uniform())
    return replace(scene, light=light, gloss=scene.gloss * (1 - hole), mask=radius < 1.7)


def _cecum(canvas: _Canvas, scene: _Scene) -> _Scene:
    rng = canvas.rng
    size = rng.uniform(0.2, 0.36)
    radius, angle = canvas.polar(canvas.place(size), rng.uniform(1.05, 1.35), 0.05, 6)
    radius = radius / size
    turn = rng.uniform(0, 2 * np.pi)
    crescent = 0.55 + 0.45 * np.cos(angle - turn)
    phase = (2.3 * radius + 0.25 * canvas.noise(5) + angle / (2 * np.pi)) % 1
    whorl = _step(radius, 1.5, 0.8) * crescent
    light = (scene.light + np.maximum(0.65 - scene.light, 0) * _step(radius, 1.8, 0.9)) * (
        1 + whorl * (0.2 * np.exp(-phase / 0.15) - 0.5 * np.exp((phase - 1) / 0.2))
    )
    slit = np.exp(-(((radius - 0.33) / 0.11) ** 2)) * _step(np.cos(angle - turn), -0.3, 0.5)
    light *= 1 - 0.88 * slit
    return replace(scene, light=light, mask=radius < 1)


def _colitis(canvas: _Canvas, scene: _Scene) -> _Scene:
    rng = canvas.rng
    size = rng.uniform(0.55, 1.0)
    radius, _ = canvas.polar(canvas.place(size * 0.8), rng.uniform(1, 1.4), 0.12, 5)
    inflamed = _step(radius / size, 1.15, 0.75)
    grain = canvas.noise(55) + 0.7 * canvas.noise(90)
    flat = _mix(scene.colour, scene.colour.mean((0, 1)) * _rgb(0.98, 0.68, 0.66), 0.85 * inflamed)
    flat *= 1 + 0.1 * (inflamed * grain)[..., None] * _rgb(0.5, 1, 1)
    spots = canvas.noise(rng.integers(14, 26)) + 0.55 * canvas.noise(45)
    level = np.quantile(spots[inflamed > 0.8], rng.uniform(0.76, 0.88)) if (inflamed > 0.8).any() else 1.0
    ulcer = _step(spots, level, level + 0.7) * _step(inflamed, 0.5, 0.9)
    edge = _step(spots, level - 0.45, level) * inflamed * (1 - ulcer)
    colour = _mix(flat, _rgb(0.52, 0.08, 0.06), 0.45 * edge)
    colour = _mix(colour, _rgb(0.86, 0.78, 0.58) * (1 + 0.08 * canvas.noise(50)[..., None]), 0.85 * ulcer)
    light = scene.light * (1 + 0.05 * inflamed * grain)
    return replace(scene, colour=colour, light=light, mask=ulcer > 0.4)


def _expose(canvas: _Canvas, scene: _Scene) -> NDArray[np.uint8]:
    """Photograph a scene: white balance, exposure, highlights, a soft lens, the border and the sensor's noise."""
    rng = canvas.rng
    balance = rng.uniform([0.95, 0.88, 0.82], [1.05, 1.12, 1.18]).astype(np.float32)
    light = np.clip(scene.light, 0.01, None)[..., None] ** _rgb(0.95, 1.1, 1.15)
    image = scene.colour * balance * light * rng.uniform(0.9, 1.5)
    image = image + scene.gloss[..., None] * _rgb(0.9, 0.95, 0.95)
    softness = rng.uniform(0.0008, 0.0028) * canvas.x.shape[1]
    image = ndimage.gaussian_filter(image * canvas.view[..., None], (softness, softness, 0), truncate=3)
    image = np.clip(1.02 * (1 - np.exp(-1.7 * np.clip(image, 0, None) ** 1.15)), 0, 1)
    grain = rng.standard_normal(image.shape[:2]).astype(np.float32)[..., None] * rng.uniform(0.004, 0.014)
    image = image + grain * (0.2 + 0.8 * canvas.view[..., None]) + rng.uniform(0, 0.03)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


_FINDINGS: dict[str, Callable[[_Canvas, _Scene], _Scene]] = {
    "dyed-lifted-polyps": _dyed_polyp,
    "dyed-resection-margins": _resection,
    "esophagitis": _esophagitis,
    "normal-cecum": _cecum,
    "normal-pylorus": _pylorus,
    "normal-z-line": _z_line,
    "polyps": _polyp,
    "ulcerative-colitis": _colitis,
}
