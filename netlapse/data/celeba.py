"""CelebA (Liu, Luo, Wang & Tang, 2015), as it is handed out and as on Kaggle, or any folder like it: faces with forty yes-or-no attributes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from netlapse.data.dataset import Dataset
from netlapse.data.images import assembled

Part = Literal["train", "val", "test"]

TABLES = ("list_attr_celeba.csv", "list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
PARTITIONS = ("list_eval_partition.csv", "list_eval_partition.txt", "Eval/list_eval_partition.txt")
IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
"""Where they lie under the root: the first that is there."""


def celeba(
    root: str | Path,
    *,
    label: str = "Smiling",
    attributes: Sequence[str] = ("Male", "Young"),
    test: Part = "test",
    size: Sequence[int] | None = None,
    grey: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Faces whose class is whether they have an attribute, "not <label>" or "<label>", with others kept for groupings.

    attributes  each becomes "<name>" or "not <name>"; "" where the table says neither 1 nor -1
    test        the part, "val" or "test", that is the test part; the third is left out
    size, grey  see `netlapse.data.image_folder`
    limit       images of each part at most, drawn with the seed: all faces of 64 x 64 in colour would take 10 GB

    The table of attributes has a column for the image's name, which is its id, or the original's count of rows and names of attributes
    in its first two lines; that of the parts tells 0, 1 or 2 for train, val or test.

    Raises FileNotFoundError for a missing table or image; ValueError, naming it, for a column that is not there, a face without a value
    of the label or of no part, and what `netlapse.data.image_folder` says of images and classes.
    """
    root = Path(root)
    if isinstance(attributes, str):
        raise ValueError(f"attributes is the string {attributes!r}; expected a list of columns: [{attributes!r}]")
    if test not in ("val", "test"):
        raise ValueError(f"celeba was given test={test!r}; expected 'val' or 'test'")
    if limit is not None and limit < 1:
        raise ValueError(f"celeba was given limit={limit}; expected at least 1 image of each part, or null for all")
    table, partition, images = (_found(root, names) for names in (TABLES, PARTITIONS, IMAGES))
    parts = _parts(partition)
    chosen: dict[str, list[tuple[str, Mapping[str, str]]]] = {"train": [], test: []}
    for line, name, values in _rows(table):
        if absent := [column for column in (label, *attributes) if column not in values]:
            raise ValueError(f"{table} has no column {absent}; it has {list(values)}")
        if values[label] not in ("1", "-1"):
            raise ValueError(f"{table}, line {line}: {label} of {name} is {values[label]!r}; a class is told by 1 or -1: remove the row")
        if name not in parts:
            raise ValueError(f"{table}, line {line}: {name} is of no part; {partition} lists {len(parts)} other images")
        if parts[name] in chosen:
            chosen[parts[name]].append((name, values))
    rng = np.random.default_rng(seed)
    rows = [(part, *listed[at]) for part, listed in chosen.items() for at in _drawn(len(listed), limit, rng)]
    paths = [images / name for _, name, _ in rows]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise FileNotFoundError(f"no image at {missing.absolute()}, which {table} lists")
    return assembled(
        "celeba",
        paths,
        [_word(label, values[label]) for _, _, values in rows],
        [name for _, name, _ in rows],
        {column: np.asarray([_word(column, values[column]) for _, _, values in rows]) for column in attributes},
        [part == test for part, _, _ in rows],
        size,
        grey,
        class_names=[_word(label, "-1"), _word(label, "1")],
    )


def _word(attribute: str, value: str) -> str:
    return {"1": attribute, "-1": f"not {attribute}"}.get(value, "")


def _drawn(n: int, limit: int | None, rng: np.random.Generator) -> list[int]:
    """The first to the last of n, or `limit` of them in their order."""
    return list(range(n)) if limit is None or n <= limit else np.sort(rng.choice(n, limit, replace=False)).tolist()


def _found(root: Path, names: Sequence[str]) -> Path:
    there = next((root / name for name in names if (root / name).exists()), None)
    if there is None:
        raise FileNotFoundError(f"{root.absolute()} holds none of {list(names)}; root must be the folder in which CelebA was unpacked")
    return there


def _rows(table: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """(line number, image's name, attribute -> value) of every face."""
    lines = _cells(table)
    if table.suffix == ".csv":
        header = next(lines)[1][1:]
    else:
        next(lines)  # how many rows follow
        header = next(lines)[1]
    for line, (name, *values) in lines:
        if len(values) != len(header):
            raise ValueError(f"{table}, line {line}: {len(values)} values for {len(header)} attributes")
        yield line, name, dict(zip(header, values))


def _parts(partition: Path) -> dict[str, str]:
    """Image's name -> "train", "val" or "test"."""
    lines = _cells(partition)
    if partition.suffix == ".csv":
        next(lines)
    parts = {}
    for line, cells in lines:
        if len(cells) != 2 or cells[1] not in ("0", "1", "2"):
            raise ValueError(f"{partition}, line {line}: {cells}; expected an image's name and 0, 1 or 2 for train, val or test")
        parts[cells[0]] = get_args(Part)[int(cells[1])]
    return parts


def _cells(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not empty."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file) if table.suffix == ".csv" else (line.split() for line in file)
        for line, cells in enumerate(rows, start=1):
            if cells:
                yield line, [cell.strip() for cell in cells]
