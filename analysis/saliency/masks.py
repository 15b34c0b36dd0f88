"""Masks of where the object is, from files of your own, matched to a probe's inputs by their ids.

Each function takes the probe whose masks are asked for, and its files as keywords: with those bound, it is what the
analysis takes as `masks`. Masks of another size than the inputs are stretched to theirs, by the nearest pixel, as an
image folder stretches images; nothing else is guessed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from netlapse.analysis.saliency.maps import boxes
from netlapse.data.images import SUFFIXES, read_image, table_rows
from netlapse.types import Array, Float32, ProbeSet

Masks = Array | Callable[[ProbeSet], Array]
"""(n, h, w) from 0 to 1, 1 where the object is, for a probe's inputs in their order; or what gives them for a probe."""


def masks_from_folder(probe: ProbeSet, *, folder: str | Path, inside: int = 255) -> Float32:
    """(n, h, w) the image in the folder that is named like each input's id: of `cat/1.jpg`, `cat/1.png` or any other image.

    inside  the grey value, from 1 to 255, that is wholly inside; 0 is outside, and what lies between counts by its share.
            The brightest pixel of all the masks must have it, because masks of another scale would look as any others

    Raises FileNotFoundError without the folder; ValueError for ids without a mask or with several, and for images that
    cannot be read or are transparent or brighter than `inside`.
    """
    size, folder = _size(probe), Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of masks at {folder.absolute()}; expected one image per input, named like its id")
    if not 1 <= inside <= 255:
        raise ValueError(f"masks were given inside={inside}; expected the grey value that is wholly inside, from 1 to 255")
    found = {name: [path for suffix in SUFFIXES if (path := folder / f"{_stem(name)}{suffix}").is_file()] for name in _ids(probe)}
    _check_all([name for name, paths in found.items() if paths], probe, f"folder {folder}", f"<id> ending in {', '.join(SUFFIXES)}")
    if several := [paths for paths in found.values() if len(paths) > 1]:
        raise ValueError(f"masks {', '.join(map(str, several[0]))} are of one input; keep one of them")
    masks = np.stack([_nearest(np.asarray(read_image(path, grey=True)), size) for (path,) in found.values()])
    if masks.max() not in (0, inside):
        raise ValueError(
            f"masks in {folder} hold grey values up to {masks.max()}; expected 0 outside to {inside} wholly inside: say which value is, with `inside`"
        )
    return masks.astype(np.float32) / np.float32(inside)


def masks_from_file(probe: ProbeSet, *, path: str | Path) -> Float32:
    """(n, h, w) from an .npz file with the arrays `ids` (m,) and `masks` (m, h, w), from 0 to 1 or booleans, in any order.

    Raises FileNotFoundError without the file; ValueError where it is none, lacks an array or an id, or has one twice.
    """
    size, path = _size(probe), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no masks at {path.absolute()}; expected an .npz file with the arrays ids (m,) and masks (m, h, w)")
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, masks = np.asarray(file["ids"]).astype(str), np.asarray(file["masks"])
    except (AttributeError, KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:  # a single array is no mapping
        raise ValueError(f"{path} does not hold masks ({error}); expected an .npz file with the arrays ids (m,) and masks (m, h, w)") from error
    if masks.ndim != 3 or ids.shape != masks.shape[:1] or len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"{path} holds ids {ids.shape}, {len(np.unique(ids))} of them distinct, and masks {masks.shape}; "
            "expected (m,), all distinct, and (m, h, w)"
        )
    _check_all(ids.tolist(), probe, str(path), "it in `ids`")
    row = {name: i for i, name in enumerate(ids.tolist())}
    return np.stack([_nearest(masks[row[name]], size) for name in _ids(probe)]).astype(np.float32)


def masks_from_boxes(
    probe: ProbeSet,
    *,
    csv: str | Path,
    id_column: str = "id",
    box_columns: Sequence[str] = ("top", "left", "bottom", "right"),
    size_columns: Sequence[str] = (),
) -> Float32:
    """(n, h, w) 1 inside the boxes of a comma-separated table, one per row under a header; an input with several is inside any.

    box_columns   the box in pixels, the last two exclusive; see `boxes`
    size_columns  height and width of the picture whose pixels these are; without, the probe's inputs

    Raises FileNotFoundError without the table; ValueError, naming file and row, for what is no number or no box in its
    picture, and for ids without a row.
    """
    size, table = _size(probe), Path(csv)
    if len(box_columns) != 4 or len(size_columns) not in (0, 2):
        raise ValueError(
            f"masks were given box_columns={list(box_columns)} and size_columns={list(size_columns)}; "
            "expected the names of top, left, bottom, right, and of height, width or none"
        )
    wanted = set(_ids(probe))
    masks: dict[str, Float32] = {}
    for line, row in table_rows(table, [id_column, *box_columns, *size_columns]):
        if (name := row[id_column]) not in wanted:
            continue
        try:
            corners = np.array([[float(row[column]) for column in box_columns]])
            height, width = (int(row[column]) for column in size_columns) if size_columns else size
            (mask,) = boxes(corners, (height, width))
        except ValueError as error:
            raise ValueError(f"{table}, line {line}: {error}") from error
        mask = _nearest(mask, size)
        masks[name] = np.maximum(masks.get(name, mask), mask)
    _check_all(masks, probe, str(table), f"it in column {id_column!r}")
    return np.stack([masks[name] for name in _ids(probe)])


def _size(probe: ProbeSet) -> tuple[int, int]:
    if probe.inputs.ndim != 4:
        raise ValueError(f"masks are of images (n, h, w, c); this probe's inputs have shape {probe.inputs.shape}; leave `masks` out")
    return probe.inputs.shape[1], probe.inputs.shape[2]


def _ids(probe: ProbeSet) -> list[str]:
    assert probe.ids is not None
    return [str(name) for name in probe.ids]


def _stem(name: str) -> str:
    """An id without the ending of an image."""
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _check_all(there: Collection[str], probe: ProbeSet, where: str, expected: str) -> None:
    if missing := [name for name in _ids(probe) if name not in set(there)]:
        raise ValueError(f"{where} has no mask for {len(missing)} of {len(probe)} inputs, with the ids {missing[:20]}; expected {expected}")


def _nearest(mask: Array, size: tuple[int, int]) -> Array:
    """A mask at another size, each pixel that of the mask under its centre."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, size))
    return mask[np.ix_(rows, columns)]
