"""Points of groups, told apart by ten colours and then by ten shapes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.ndimage import binary_dilation

from netlapse.render import ink
from netlapse.render.colours import FRAME, HUES, INK, MISSING, PAPER, SEQUENTIAL
from netlapse.types import Float64, Int64, UInt8

SCATTER, MARK = 420, 11  # width of a scatter plot, and of a point in it with its edge
_MARKED = np.concatenate([np.array(HUES, dtype=np.uint8), SEQUENTIAL[len(HUES) :]])


def scatter(points: Float64 | str, groups: Int64, names: Sequence[str], title: str, note: str = "") -> UInt8:
    """Points (m, 2) in [0, 1], y up, each in the colour and the shape of its group (m,), beside a legend of all groups: (h, w, 3).

    points  or the reason why there are none, which is written in their place
    names   (g,) of the groups; after each is written how many points are of it. The first ten are discs in ten colours, the next ten
            squares in the same, and so on through ten shapes, whether they have points or not, so that a group keeps its mark from
            step to step. All after the first hundred share one mark, a black dot
    note    is written below

    Each point has a white edge. Which one covers which has nothing to do with groups and is always the same.

    Raises ValueError for points that are not (m, 2), all in [0, 1], for groups that are not (m,) indices of names, and for no names.
    """
    groups = np.asarray(groups)
    if not len(names) or groups.ndim != 1 or (len(groups) and not 0 <= groups.min() <= groups.max() < len(names)):
        raise ValueError(f"groups have shape {groups.shape} and there are {len(names)} names; expected (m,) indices of the names, at least one name")
    if not isinstance(points, str) and (np.shape(points) != (len(groups), 2) or not ((points >= 0) & (points <= 1)).all()):
        raise ValueError(f"points have shape {np.shape(points)}; expected ({len(groups)}, 2), all in [0, 1], one for each of the groups")
    legend = _legend(names, np.bincount(groups, minlength=len(names)).tolist())
    width = max(SCATTER + 2 * ink.GAP + legend.shape[1], 420)
    heading, below = ink.paragraph(title, width, ink.TITLE), ink.paragraph(note, width, ink.SMALL)
    top = ink.MARGIN + len(heading) + ink.GAP
    page = ink.blank(top + SCATTER + ink.GAP + len(below) + ink.MARGIN, width + 2 * ink.MARGIN)
    ink.stamp(page, heading, ink.MARGIN, ink.MARGIN)
    ink.stamp(page, legend, top, ink.MARGIN + SCATTER + 2 * ink.GAP)
    ink.stamp(page, below, top + SCATTER + ink.GAP, ink.MARGIN)
    square = page[top : top + SCATTER, ink.MARGIN : ink.MARGIN + SCATTER]
    if isinstance(points, str):
        reason = ink.paragraph(points, SCATTER - 4 * ink.GAP, ink.LABEL)
        square[:] = MISSING
        ink.stamp(square, reason, (SCATTER - len(reason)) // 2, 2 * ink.GAP)
    else:
        square[:] = FRAME
        square[1:-1, 1:-1] = PAPER
        room = SCATTER - MARK - 2 * ink.GAP  # a mark at the edge is whole
        places = np.rint(np.column_stack([1 - points[:, 1], points[:, 0]]) * room).astype(int) + ink.GAP
        for i in np.random.default_rng(0).permutation(len(points)):
            (y, x), mark = places[i], _mark(int(groups[i]))
            np.copyto(square[y : y + MARK, x : x + MARK], mark, where=mark != MISSING)
    return ink.coloured(page, _MARKED)


@lru_cache
def _mark(group: int) -> UInt8:
    """Palette indices (MARK, MARK) of a point of the group in its white edge, MISSING around it; not to be written to."""
    y, x = np.abs(np.indices((MARK, MARK)) - MARK // 2)
    down = np.indices((MARK, MARK))[0] - MARK // 2
    shapes = (
        y**2 + x**2 <= 12,
        np.maximum(y, x) <= 3,
        (np.abs(down) <= 3) & (x <= (down + 3) // 2 + 0.5),
        y + 2 * x <= 4,
        (np.minimum(y, x) <= 1) & (np.maximum(y, x) <= 4),
        (np.abs(y - x) <= 1) & (np.maximum(y, x) <= 3),
        (np.abs(down) <= 3) & (x <= (3 - down) // 2 + 0.5),
        (y**2 + x**2 <= 18) & (y**2 + x**2 >= 8),
        (np.maximum(y, x) <= 4) & (np.maximum(y, x) >= 3),
        (y <= 1) & (x <= 4),
    )
    last = group >= len(HUES) * len(shapes)
    shape = y**2 + x**2 <= 2 if last else shapes[group // len(HUES)]
    mark: UInt8 = np.full((MARK, MARK), MISSING, dtype=np.uint8)
    mark[binary_dilation(shape)] = PAPER
    mark[shape] = INK + 15 if last else group % len(HUES)
    mark.flags.writeable = False
    return mark


def _legend(names: Sequence[str], counts: Sequence[int]) -> UInt8:
    """Palette indices (SCATTER, w) of the groups' marks, names and numbers of points, in columns."""
    marks = min(len(names), 10 * len(HUES))
    lines = [(ink.shortened(name, 140, ink.SMALL), count) for name, count in zip(names[:marks], counts)]
    if len(names) > marks:
        lines.append((f"{len(names) - marks} more", sum(counts[marks:])))
    written = [ink.words(f"{name} ({count})", ink.SMALL) for name, count in lines]
    height = max(MARK, ink.line_height(ink.SMALL))
    rows = SCATTER // height
    columns = [written[start : start + rows] for start in range(0, len(written), rows)]
    widths = [MARK + ink.GAP + max(line.shape[1] for line in column) + 2 * ink.GAP for column in columns]
    legend = ink.blank(SCATTER, sum(widths))
    for i, line in enumerate(written):
        column, row = divmod(i, rows)
        x, mark = sum(widths[:column]), _mark(i)
        np.copyto(legend[row * height + 3 :, x:][:MARK, :MARK], mark, where=mark != MISSING)
        ink.stamp(legend, line, row * height, x + MARK + ink.GAP)
    return legend
