"""The silhouettes of the tiny world's objects, as polygons in a square from -1 to 1 (y points down)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """A filled polygon: points (n, 2). `role` names its colour; small parts are what a child leaves out."""

    points: np.ndarray
    role: str
    small: bool = False


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Points of an ellipse, or of the arc between two fractions of a turn (clockwise from the right)."""
    angle = 2 * np.pi * np.linspace(start, end, 33)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def rocket() -> list[Part]:
    side = [(0, -1.0), (0.16, -0.82), (0.3, -0.56), (0.37, -0.25), (0.37, 0.55)]
    return [
        Part(polygon((-0.2, 0.5), (-0.12, 0.8), (0, 1.0), (0.12, 0.8), (0.2, 0.5)), "flame"),
        Part(polygon((-0.3, 0.05), (-0.8, 0.5), (-0.8, 0.85), (-0.3, 0.6)), "accent"),
        Part(polygon((0.3, 0.05), (0.8, 0.5), (0.8, 0.85), (0.3, 0.6)), "accent"),
        Part(polygon(*side, *[(-x, y) for x, y in reversed(side[1:])]), "body"),
        Part(polygon((0, -1.0), (0.16, -0.82), (0.3, -0.56), (-0.3, -0.56), (-0.16, -0.82)), "accent"),
        Part(ellipse(0, -0.22, 0.18, 0.18), "window", small=True),
    ]


def submarine() -> list[Part]:
    return [
        Part(polygon((0.12, -0.85), (0.4, -0.85), (0.4, -0.7), (0.24, -0.7), (0.24, -0.4), (0.12, -0.4)), "accent"),
        Part(box(-0.22, -0.52, 0.34, 0.0), "accent"),
        Part(polygon((-0.8, 0.2), (-1.0, -0.2), (-1.0, 0.6)), "accent"),
        Part(ellipse(0.03, 0.2, 0.9, 0.46), "body"),
        *[Part(ellipse(x, 0.15, 0.14, 0.14), "window", small=True) for x in (-0.4, 0.05, 0.5)],
    ]


def robot() -> list[Part]:
    return [
        Part(box(-0.36, 0.35, -0.08, 1.0), "accent"),
        Part(box(0.08, 0.35, 0.36, 1.0), "accent"),
        Part(box(-0.82, -0.28, -0.54, 0.35), "accent"),
        Part(box(0.54, -0.28, 0.82, 0.35), "accent"),
        Part(box(-0.54, -0.32, 0.54, 0.45), "body"),
        Part(box(-0.44, -1.0, 0.44, -0.4), "body"),
        Part(box(-0.32, -0.86, 0.32, -0.58), "window"),
        Part(box(-0.24, -0.15, 0.24, 0.15), "accent", small=True),
    ]


def planet() -> list[Part]:
    return [
        Part(ellipse(0, 0, 0.85, 0.85), "body"),
        Part(polygon((-0.82, -0.22), (-0.3, -0.34), (0.4, -0.3), (0.82, -0.22), (0.85, 0.02), (0.3, -0.06),
                     (-0.4, -0.08), (-0.85, 0.02)), "accent"),
        Part(ellipse(-0.25, 0.42, 0.24, 0.16), "accent", small=True),
        Part(ellipse(0.3, -0.58, 0.17, 0.12), "accent", small=True),
    ]


def dome() -> list[Part]:
    return [
        Part(np.concatenate([ellipse(0, 0.4, 0.88, 1.05, 0.5, 1.0)]), "body"),
        Part(box(-1.0, 0.38, 1.0, 0.72), "accent"),
        Part(np.concatenate([ellipse(0, 0.0, 0.24, 0.3, 0.5, 1.0), polygon((0.24, 0.4), (-0.24, 0.4))]), "window"),
        Part(ellipse(-0.52, 0.05, 0.13, 0.13), "window", small=True),
        Part(ellipse(0.52, 0.05, 0.13, 0.13), "window", small=True),
    ]


def car() -> list[Part]:
    return [
        Part(ellipse(-0.5, 0.42, 0.26, 0.14), "flame"),
        Part(ellipse(0.5, 0.42, 0.26, 0.14), "flame"),
        Part(polygon((-0.98, -0.5), (-0.72, -0.5), (-0.5, 0.0), (-0.95, 0.1)), "accent"),
        Part(polygon((-0.95, 0.34), (-0.95, -0.02), (-0.5, -0.12), (-0.24, -0.52), (0.3, -0.52), (0.56, -0.12),
                     (0.98, 0.04), (0.98, 0.34)), "body"),
        Part(polygon((-0.32, -0.1), (-0.14, -0.4), (0.22, -0.4), (0.4, -0.1)), "window"),
    ]


def octopus() -> list[Part]:
    legs = []
    for x, bend in ((-0.62, -0.3), (-0.24, -0.12), (0.24, 0.12), (0.62, 0.3)):
        legs.append(Part(polygon((x * 0.7 - 0.14, 0.1), (x * 0.7 + 0.14, 0.1), (x + 0.14, 0.5), (x + bend + 0.12, 0.98),
                                 (x + bend - 0.12, 0.98), (x - 0.14, 0.5)), "accent"))
    return [
        *legs,
        Part(ellipse(0, -0.32, 0.66, 0.66), "body"),
        Part(ellipse(-0.25, -0.35, 0.17, 0.2), "window"),
        Part(ellipse(0.25, -0.35, 0.17, 0.2), "window"),
        Part(ellipse(-0.22, -0.31, 0.08, 0.1), "pupil", small=True),
        Part(ellipse(0.28, -0.31, 0.08, 0.1), "pupil", small=True),
    ]


def station() -> list[Part]:
    return [
        Part(box(-0.7, -0.08, 0.7, 0.08), "accent"),
        Part(box(-1.0, -0.6, -0.52, 0.6), "panel"),
        Part(box(0.52, -0.6, 1.0, 0.6), "panel"),
        Part(box(-0.12, -0.85, 0.12, 0.85), "accent"),
        Part(ellipse(0, 0, 0.36, 0.36), "body"),
        Part(ellipse(0, 0, 0.16, 0.16), "window", small=True),
    ]


SHAPES = {"rocket": rocket, "submarine": submarine, "robot": robot, "planet": planet, "dome": dome, "car": car,
          "octopus": octopus, "station": station}

# role → colour, for each ordinary colouring
PALETTES: dict[str, list[dict[str, Colour]]] = {
    "rocket": [{"body": (235, 235, 240), "accent": (60, 110, 210), "window": (120, 200, 240)},
               {"body": (90, 180, 110), "accent": (30, 100, 60), "window": (230, 240, 200)},
               {"body": (240, 140, 170), "accent": (120, 50, 110), "window": (250, 240, 250)}],
    "submarine": [{"body": (245, 200, 60), "accent": (205, 130, 30), "window": (210, 240, 250)},
                  {"body": (225, 90, 70), "accent": (150, 45, 45), "window": (250, 230, 210)},
                  {"body": (110, 130, 140), "accent": (65, 80, 95), "window": (240, 240, 180)}],
    "robot": [{"body": (165, 175, 185), "accent": (95, 105, 120), "window": (60, 200, 240)},
              {"body": (215, 105, 75), "accent": (130, 60, 50), "window": (250, 235, 170)},
              {"body": (130, 175, 220), "accent": (65, 95, 160), "window": (255, 255, 255)}],
    "planet": [{"body": (235, 150, 75), "accent": (195, 100, 50)},
               {"body": (115, 190, 120), "accent": (65, 140, 90)},
               {"body": (215, 130, 185), "accent": (165, 80, 150)}],
    "dome": [{"body": (170, 225, 240), "accent": (120, 130, 150), "window": (60, 90, 140)},
             {"body": (250, 225, 150), "accent": (165, 115, 80), "window": (130, 70, 50)},
             {"body": (190, 230, 170), "accent": (100, 120, 100), "window": (50, 100, 80)}],
    "car": [{"body": (230, 60, 60), "accent": (150, 30, 50), "window": (190, 230, 250)},
            {"body": (70, 170, 170), "accent": (30, 110, 120), "window": (240, 250, 230)},
            {"body": (250, 180, 60), "accent": (190, 110, 30), "window": (120, 160, 200)}],
    "octopus": [{"body": (240, 120, 90), "accent": (215, 85, 65)},
                {"body": (190, 110, 200), "accent": (150, 70, 165)},
                {"body": (90, 190, 180), "accent": (50, 150, 145)}],
    "station": [{"body": (225, 225, 230), "accent": (150, 155, 165), "panel": (50, 90, 190)},
                {"body": (240, 215, 160), "accent": (165, 135, 100), "panel": (200, 120, 40)},
                {"body": (190, 220, 200), "accent": (110, 145, 125), "panel": (40, 130, 110)}],
}
COMMON: dict[str, Colour] = {"flame": (255, 175, 50), "window": (250, 250, 250), "pupil": (30, 30, 50)}


def stripes(colour_role: str) -> list[Part]:
    """Bands round a rocket."""
    return [Part(box(-0.37, y, 0.37, y + 0.17), colour_role) for y in (-0.08, 0.24)]


def ring(front: bool) -> Part:
    """A planet's ring: the half that lies behind it, or the one before."""
    turn = (0.0, 0.5) if front else (0.5, 1.0)
    outer, inner = ellipse(0, 0, 1.3, 0.42, *turn), ellipse(0, 0.0, 0.95, 0.22, *turn)
    return Part(np.concatenate([outer, inner[::-1]]), "ring")


INDIVIDUAL_COLOURS: dict[str, dict[str, Colour]] = {
    "red striped rocket": {"body": (250, 250, 250), "accent": (215, 25, 35), "stripe": (215, 25, 35),
                           "window": (60, 60, 80)},
    "golden rocket": {"body": (250, 190, 20), "accent": (25, 150, 150), "window": (25, 150, 150)},
    "yellow visor robot": {"body": (250, 220, 30), "accent": (60, 60, 70), "window": (40, 220, 60)},
    "purple submarine": {"body": (130, 50, 190), "accent": (250, 130, 200), "window": (255, 240, 120)},
    "ringed blue planet": {"body": (45, 95, 220), "accent": (110, 165, 250), "ring": (240, 215, 150)},
}


def parts_of(kind: str, individual: str | None) -> list[Part]:
    """The polygons of an object, back to front."""
    parts = SHAPES[kind]()
    if individual == "red striped rocket":
        parts = parts[:-1] + stripes("stripe")
    elif individual == "ringed blue planet":
        parts = [ring(front=False), *parts, ring(front=True)]
    return parts


def colours_of(kind: str, palette: int, individual: str | None) -> dict[str, Colour]:
    """role → colour of an object's parts."""
    own = INDIVIDUAL_COLOURS[individual] if individual else PALETTES[kind][palette]
    return {**COMMON, **own}
