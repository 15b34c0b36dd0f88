"""A page of palette indices, and what is written on it: text, frames, a colour bar; and its PNG.

Bitmaps of text are kept and shared, so that a page costs milliseconds. They are never written to.
"""

from __future__ import annotations

import importlib.util
import io
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from netlapse.render.colours import FRAME, INK, LEVELS, MISSING, PAPER
from netlapse.types import UInt8

MARGIN, GAP = 12, 6
TITLE, LABEL, SMALL = 16, 13, 12  # font sizes
BAR = 220  # width of a colour bar


def png(image: UInt8) -> bytes:
    """The PNG of a picture (h, w, 3): exactly these pixels, and the same bytes for the same pixels.

    A picture of at most 256 colours is stored with a palette, which is several times faster and smaller than RGB.

    Raises ValueError for anything but (h, w, 3) uint8 with at least one pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"picture has shape {image.shape} and dtype {image.dtype}; expected (h, w, 3) uint8 with at least one pixel")
    pixels, file = Image.fromarray(image), io.BytesIO()
    colours = pixels.getcolors(256)
    if colours is None:
        pixels.save(file, "PNG", compress_level=1)
        return file.getvalue()
    palette = np.array(sorted(colour for _, colour in colours), dtype=np.uint8)
    index = np.empty(1 << 24, dtype=np.uint8)  # 16 MB that are reserved, of which only the pages of these colours are touched
    index[palette @ (1, 1 << 8, 1 << 16)] = np.arange(len(palette))
    packed = np.frombuffer(pixels.tobytes("raw", "RGBX"), dtype="<u4") & 0xFFFFFF
    indexed = Image.fromarray(index.take(packed).reshape(image.shape[:2]))
    indexed.putpalette(palette.tobytes())
    indexed.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)  # maps hardly repeat, so searching for repeats only costs time
    return file.getvalue()


def blank(height: int, width: int) -> UInt8:
    return np.full((height, width), PAPER, dtype=np.uint8)


def coloured(page: UInt8, palette: UInt8) -> UInt8:
    return np.take(palette, page, axis=0)


@lru_cache
def _font(size: int, plain: bool) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or for letters it has not got, DejaVu Sans from matplotlib's files (found without importing matplotlib)."""
    found = None if plain else importlib.util.find_spec("matplotlib")
    if found is not None and found.submodule_search_locations:
        path = Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size - 1)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache
def line_height(size: int) -> int:
    """Height in pixels of a line of text, the same for all texts of the size."""
    return size + 5


@lru_cache(maxsize=4096)
def words(text: str, size: int) -> UInt8:
    """Palette indices (line_height(size), w) of a line of text on paper; not to be written to."""
    font = _font(size, text.isascii() or all(letter in "\u00b7\u00b1" for letter in text if not letter.isascii()))
    width = max(1, int(np.ceil(font.getlength(text))) + 1)
    canvas = Image.new("L", (width, line_height(size)), 0)
    ImageDraw.Draw(canvas).text((0, size), text, font=font, fill=255, anchor="ls")
    drawn = (np.asarray(canvas, dtype=np.uint16) * 15 + 127) // 255 + INK
    bitmap: UInt8 = drawn.astype(np.uint8)
    bitmap.flags.writeable = False
    return bitmap


@lru_cache(maxsize=4096)
def shortened(text: str, width: int, size: int) -> str:
    """The text, without as much of its middle as it takes to fit into the width."""
    if words(text, size).shape[1] <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = text[: -(-kept // 2)] + "..." + text[len(text) - kept // 2 :]
        if words(shorter, size).shape[1] <= width:
            return shorter
    return ""


@lru_cache(maxsize=4096)
def paragraph(text: str, width: int, size: int) -> UInt8:
    """Palette indices (h, width) of a text broken into lines at its spaces; words too long for a line lose their middle."""
    lines = _broken(text, width, size)
    block = blank(len(lines) * line_height(size), width)
    for position, line in enumerate(lines):
        stamp(block, words(line, size), position * line_height(size), 0)
    block.flags.writeable = False
    return block


@lru_cache(maxsize=4096)
def heading(text: str, width: int) -> UInt8:
    """A paragraph (h, width) of label size with its lines in the middle."""
    lines = _broken(text, width, LABEL)
    block = blank(len(lines) * line_height(LABEL), width)
    for position, line in enumerate(lines):
        centre(block, words(line, LABEL), position * line_height(LABEL), 0, width)
    block.flags.writeable = False
    return block


def _broken(text: str, width: int, size: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and words(joined, size).shape[1] <= width:
            lines[-1] = joined
        else:
            lines.append(shortened(word, width, size))
    return lines


def stamp(page: UInt8, bitmap: UInt8, y: int, x: int) -> None:
    """Write a bitmap of text over the page, as far as it lies on it, leaving the page where the bitmap is paper."""
    target = page[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
    cut = bitmap[: target.shape[0], : target.shape[1]]
    np.copyto(target, cut, where=cut != PAPER)


def centre(page: UInt8, bitmap: UInt8, y: int, x: int, width: int) -> None:
    """Write a bitmap of text in the middle of the width that begins at x."""
    stamp(page, bitmap, y, x + (width - bitmap.shape[1]) // 2)


def number(value: float) -> str:
    """Three significant digits; whole numbers in full up to a million; no negative zero."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value + 0.0:.3g}"


def bar_height() -> int:
    return 12 + line_height(SMALL)


def bar_width(unit_label: str) -> int:
    """Width in pixels of a colour bar and what is written beside it, at least what a short title needs."""
    needed: int = BAR + 2 * GAP + words(unit_label, SMALL).shape[1]
    return max(420, needed)


def colour_bar(page: UInt8, y: int, numbers: tuple[str, str, str], unit_label: str) -> None:
    """Draw all levels from left to right with the numbers of both ends and the middle below and the unit beside, then what grey means."""
    page[y : y + 12, MARGIN : MARGIN + BAR] = FRAME
    page[y + 1 : y + 11, MARGIN + 1 : MARGIN + BAR - 1] = np.arange(BAR - 2) * LEVELS // (BAR - 2)
    for number, place in zip(numbers, (0.0, 0.5, 1.0)):
        bitmap = words(number, SMALL)
        stamp(page, bitmap, y + 13, MARGIN + round(place * (BAR - bitmap.shape[1])))
    beside = MARGIN + BAR + 2 * GAP
    stamp(page, words(unit_label, SMALL), y - 3, beside)
    page[y + 16 : y + 26, beside : beside + 10] = MISSING
    stamp(page, words("no data", SMALL), y + 12, beside + 16)
