"""Values as indices of a palette, and what colours those are.

Signed values have zero exactly white between two hues, non-negative ones are white-orange-brown. The colours of signed ones are
equally light to both sides and lose lightness evenly, so that a print in grey still shows how far a value is from zero (no such
colours can show its sign there), and none needs red told from green. The limit is the caller's, so that maps can share it. NaN is grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlapse.types import Float64, UInt8

LEVELS = 201  # of a colour scale; odd, so that the middle one is zero
MISSING = LEVELS  # palette index of NaN
INK = LEVELS + 1  # first of the 16 indices from paper to ink
PAPER, FRAME = INK, INK + 4
_GREY = (237, 237, 237)
_BLUE = ((8, 48, 107), (33, 102, 172), (92, 155, 214), (169, 206, 238))
_RED = ((246, 189, 173), (225, 122, 105), (184, 44, 51), (113, 0, 26))
_PURPLE = ((75, 29, 104), (124, 75, 176), (156, 142, 201), (204, 197, 237))
_ORANGE = ((255, 189, 110), (221, 128, 16), (159, 76, 1), (87, 38, 0))
_TEAL = ((1, 60, 48), (21, 111, 103), (70, 165, 157), (139, 216, 204))
_BROWN = ((228, 199, 130), (201, 138, 54), (145, 85, 15), (78, 44, 0))
_EMBER = ((255, 255, 255), (253, 212, 158), (236, 132, 62), (172, 56, 30), (62, 12, 28))
_WHITE = (255, 255, 255)


def _palette(stops: Sequence[tuple[int, int, int]]) -> UInt8:
    """The colours (256, 3): LEVELS between the stops, the grey of NaN, sixteen from white to ink."""
    scale = np.linspace(0, len(stops) - 1, LEVELS)
    colours = np.zeros((256, 3))
    colours[:LEVELS] = np.column_stack([np.interp(scale, np.arange(len(stops)), channel) for channel in np.transpose(stops)])
    colours[MISSING] = _GREY
    colours[INK : INK + 16] = np.linspace((255, 255, 255), (24, 24, 28), 16)
    return np.rint(colours).astype(np.uint8)


BLUE_WHITE_RED = "blue_white_red"

COLOURS = {
    BLUE_WHITE_RED: _palette((*_BLUE, _WHITE, *_RED)),
    "purple_white_orange": _palette((*_PURPLE, _WHITE, *_ORANGE)),
    "teal_white_brown": _palette((*_TEAL, _WHITE, *_BROWN)),
}
"""Name -> colours (256, 3) of the indices that `diverging` returns; a name goes from negative to positive.

Equal values of either sign are told apart with any kind of colour vision: best in purple-orange without red or green cones, in
blue-red without blue ones. Teal-brown is for pages on which the other hues already mean something. The hues of both are those
of PuOr and BrBG (Brewer, Hatchard and Harrower, 2003, "ColorBrewer in print"), here at the lightnesses of blue-red.
"""

SEQUENTIAL = _palette(_EMBER)
"""Colours (256, 3) of the indices that `sequential` returns."""

HUES = (
    (63, 144, 218), (255, 169, 14), (189, 31, 1), (148, 164, 162), (131, 45, 182),
    (169, 107, 89), (231, 99, 0), (185, 172, 112), (113, 117, 129), (146, 218, 221),
)  # fmt: skip
"""Ten colours of groups, which any kind of colour vision tells apart (Petroff, 2021, "Accessible color sequences for data visualization")."""


def diverging(values: Float64, limit: float) -> UInt8:
    """Palette indices of signed values, any shape: -limit and below is the first colour, zero white, limit and above the last, NaN grey.

    With limit 0 (nothing differs from zero) every value but zero is at its end of the scale.

    Raises ValueError for a limit that is negative or not finite.
    """
    return _levels(values, limit, span=LEVELS // 2, zero=LEVELS // 2)


def sequential(values: Float64, limit: float) -> UInt8:
    """Palette indices of non-negative values, any shape: zero and below is white, limit and above dark brown, NaN grey.

    Raises ValueError for a limit that is negative or not finite.
    """
    return _levels(values, limit, span=LEVELS - 1, zero=0)


def palette(colours: str) -> UInt8:
    """The colours (256, 3) of that name; raises ValueError, with the names there are, for any other."""
    if colours not in COLOURS:
        raise ValueError(f"no colours named {colours!r}; there are {list(COLOURS)}, each from negative to positive")
    return COLOURS[colours]


def _levels(values: Float64, limit: float, span: int, zero: int) -> UInt8:
    """The nearest of the levels zero - span ... zero + span, cut to the scale, for values between -limit and limit."""
    if not (np.isfinite(limit) and limit >= 0):
        raise ValueError(f"colour limit is {limit}; expected a finite number of at least 0, the value at the end of the scale")
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # what overflows lies far beyond the scale's end, where it is drawn
        scaled = values / limit * span if limit > 0 else np.sign(values) * span
    missing = np.isnan(scaled)
    np.rint(scaled, out=scaled)
    scaled += zero
    np.clip(scaled, 0, LEVELS - 1, out=scaled)
    scaled[missing] = MISSING
    levels: UInt8 = scaled.astype(np.uint8)
    return levels
