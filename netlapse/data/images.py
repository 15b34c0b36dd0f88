"""Your own images, from folders or from a table, through Pillow.

Nothing is guessed: whatever cannot be read as meant is an error that names the file or the row. Every image becomes
8-bit grey or RGB; its EXIF orientation is applied, so that it is seen the way a viewer shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from csv import DictReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from netlapse.data.dataset import Dataset, Float32, stratified_split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def image_folder(root: str | Path, size: Sequence[int] | None = None, grey: bool = False, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """The images under root/<class>/; or, where root/train and root/test both exist, under root/<part>/<class>/.

    size (h, w) stretches every image to that size (bilinear, antialiased); without it all must have one size already.
    grey makes one channel (ITU-R 601 luma) instead of three. test_fraction and seed split a folder that is not split yet.
    Classes are in order of name, as numbers where all are; images in order of file name. ids are paths relative to root.

    Raises FileNotFoundError without the folder; ValueError, naming it, for a folder without classes, a class without
    images, anything else in a class's folder (hidden files are passed over), an image that cannot be read or is
    transparent or has more than 8 bits, mixed sizes without size, a class that only one part has or with one image.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder at {root.absolute()}; expected a folder that holds one folder of images per class")
    parts = ("train", "test") if (root / "train").is_dir() and (root / "test").is_dir() else ("",)
    if others := sorted(folder.name for folder in _folders(root) if parts != ("",) and folder.name not in parts):
        raise ValueError(f"{root} is split into train and test and also holds the folders {others}; move them elsewhere")
    found = [(part, *pair) for part in parts for pair in _class_images(root / part)]
    return assembled(
        root.resolve().name,
        [path for _, _, path in found],
        [label for _, label, _ in found],
        [path.relative_to(root).as_posix() for _, _, path in found],
        {},
        None if parts == ("",) else [part == "test" for part, _, _ in found],
        size,
        grey,
        test_fraction,
        seed,
    )


def image_csv(
    csv: str | Path,
    root: str | Path | None = None,
    *,
    image_column: str,
    label_column: str,
    attribute_columns: Sequence[str] = (),
    split_column: str | None = None,
    test_csv: str | Path | None = None,
    size: Sequence[int] | None = None,
    grey: bool = False,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """The images a comma-separated table lists, one per row under a header; FairFace's, for one: file, age, gender, race.

    image_column       paths relative to root, by default the table's folder; they are the ids
    label_column       class names; the classes are in order of name, as numbers where all are
    attribute_columns  columns kept as attributes, for groupings
    split_column       holds "train" or "test" in every row
    test_csv           a second table of the same columns, all of it the test part
    With neither of the last two, test_fraction and seed split the rows. size, grey: see `image_folder`.

    Raises FileNotFoundError for a missing table or image; ValueError, naming file, row or column, for a missing column,
    an empty cell, another word in split_column, an image listed twice, and what `image_folder` says of images and classes.
    """
    if isinstance(attribute_columns, str):
        raise ValueError(f"attribute_columns is the string {attribute_columns!r}; expected a list of columns: [{attribute_columns!r}]")
    if split_column is not None and test_csv is not None:
        raise ValueError(f"both split_column {split_column!r} and test_csv {str(test_csv)!r} say which rows are the test part; give one of them")
    tables = [Path(csv)] if test_csv is None else [Path(csv), Path(test_csv)]
    columns = [image_column, label_column, *attribute_columns, *([] if split_column is None else [split_column])]
    rows = [(table, *row) for table in tables for row in table_rows(table, columns)]
    is_test = None
    if split_column is not None:
        for table, line, row in rows:
            if row[split_column] not in ("train", "test"):
                raise ValueError(f"{table}, line {line}: column {split_column!r} holds {row[split_column]!r}; allowed are 'train' and 'test'")
        is_test = [row[split_column] == "test" for _, _, row in rows]
    elif test_csv is not None:
        is_test = [table == tables[1] for table, _, _ in rows]
    paths = []
    seen: dict[str, str] = {}
    for table, line, row in rows:
        path = (table.parent if root is None else Path(root)) / row[image_column]
        if not path.is_file():
            raise FileNotFoundError(
                f"{table}, line {line}: no image at {path.absolute()}; root must be the folder that column {image_column!r} starts from"
            )
        if row[image_column] in seen:
            raise ValueError(
                f"{table}, line {line}: image {row[image_column]!r} was already listed in {seen[row[image_column]]}; keep one of the rows"
            )
        seen[row[image_column]] = f"{table}, line {line}"
        paths.append(path)
    labels = [row[label_column] for _, _, row in rows]
    attributes = {column: np.asarray([row[column] for _, _, row in rows]) for column in attribute_columns}
    return assembled(Path(csv).stem, paths, labels, list(seen), attributes, is_test, size, grey, test_fraction, seed)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_images(folder: Path) -> list[tuple[str, Path]]:
    """(class, image) of every image in the folder's folders."""
    if not _folders(folder):
        entries = sorted(entry.name for entry in folder.iterdir())[:5]
        raise ValueError(f"{folder} holds no class folders but {entries}; expected {folder}/<class>/<image>")
    found = []
    for each in _folders(folder):
        images = sorted(entry for entry in each.iterdir() if not entry.name.startswith("."))
        for image in images:
            if image.is_dir() or image.suffix.lower() not in SUFFIXES:
                raise ValueError(
                    f"{image} is not an image; a class folder holds files ending in {', '.join(SUFFIXES)} and nothing else "
                    "(a split folder has both train/<class> and test/<class>): move it elsewhere"
                )
        if not images:
            raise ValueError(f"class folder {each} holds no images; add some or remove the folder")
        found += [(each.name, image) for image in images]
    return found


def table_rows(table: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, cells) of every row of a comma-separated table; the columns exist and none of their cells is empty.

    Raises FileNotFoundError without the table; ValueError, naming file, row or column, for a missing column, an empty cell, no rows.
    """
    if not table.is_file():
        raise FileNotFoundError(f"no table at {table.absolute()}; expected a comma-separated file with a header")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = DictReader(file)
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise ValueError(f"{table} has no column {missing}; its first line names {list(reader.fieldnames or ())}")
        rows = []
        for row in reader:
            if empty := [column for column in columns if not row[column]]:
                raise ValueError(
                    f"{table}, line {reader.line_num}: no value in {empty}; fill it in (an attribute may say 'unknown') or remove the row"
                )
            rows.append((reader.line_num, {column: row[column] for column in columns}))
    if not rows:
        raise ValueError(f"{table} has a header and no rows; expected one row per image")
    return rows


def assembled(
    name: str,
    paths: Sequence[Path],
    labels: Sequence[str],
    ids: Sequence[str],
    attributes: Mapping[str, NDArray[np.str_]],
    is_test: Sequence[bool] | None,
    size: Sequence[int] | None,
    grey: bool,
    test_fraction: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The data set of the images at `paths`, each of a class by its name; see `image_folder` for what is refused.

    attributes   name -> (n,)          is_test      of each image; None: test_fraction and seed tell
    class_names  in their order; None: the names there are, sorted, as numbers where all are
    """
    numbered = all(label.isdecimal() for label in labels)
    class_names = sorted(set(labels), key=lambda label: (int(label) if numbered else 0, label)) if class_names is None else list(class_names)
    indices = np.asarray([class_names.index(label) for label in labels])
    if is_test is None:
        train, test = stratified_split(indices, test_fraction, seed, class_names)
    else:
        train, test = np.flatnonzero(~np.asarray(is_test)), np.flatnonzero(is_test)
        for part, members in (("train", train), ("test", test)):
            if absent := [each for label, each in enumerate(class_names) if label not in indices[members]]:
                raise ValueError(
                    f"{name}: the {part} part has no image of class {absent[:5]}; both parts need every class: add images or remove the class"
                )
    if size is not None and (isinstance(size, str | int) or len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size!r}; expected (height, width) in pixels")
    shape = (size[0], size[1]) if size is not None else read_image(paths[0], grey).size[::-1]
    return Dataset(
        name,
        _pixels([paths[index] for index in train], shape, grey, None if size is not None else paths[0]),
        indices[train],
        _pixels([paths[index] for index in test], shape, grey, None if size is not None else paths[0]),
        indices[test],
        class_names,
        {column: values[train] for column, values in attributes.items()},
        {column: values[test] for column, values in attributes.items()},
        np.asarray(ids)[train],
        np.asarray(ids)[test],
    )


def _pixels(paths: Sequence[Path], shape: tuple[int, int], grey: bool, reference: Path | None) -> Float32:
    """(n, h, w, c) in [0, 1]; with a reference image, whose size all must have, nothing is resized."""
    pixels = np.empty((len(paths), *shape, 1 if grey else 3), np.float32)

    def read(row: int) -> None:
        image = read_image(paths[row], grey)
        if image.size != shape[::-1]:
            if reference is not None:
                raise ValueError(
                    f"{paths[row]} is {image.height} x {image.width} and {reference} is {shape[0]} x {shape[1]} (height x width); "
                    "give size=(height, width) to bring all images to one size"
                )
            image = image.resize(shape[::-1], Image.Resampling.BILINEAR)
        pixels[row] = np.atleast_3d(np.asarray(image))

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        list(pool.map(read, range(len(paths))))
    pixels /= 255
    return pixels


def read_image(path: Path, grey: bool) -> Image.Image:
    """The image as a viewer shows it, 8-bit grey or RGB; raises ValueError, naming it, for what cannot be read as meant."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    # SyntaxError is what Pillow raises for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); replace or remove it") from error
    if image.mode not in MODES:
        raise ValueError(
            f"{path} has Pillow mode {image.mode!r}, more than 8 bits per channel or an uncommon colour space; save it as 8-bit grey or RGB"
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise ValueError(f"{path} is transparent in places; which colour shows through is undefined: put it on a background first")
    return image.convert("L" if grey else "RGB")
