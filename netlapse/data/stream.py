"""Images in a folder of any size, without labels, as a stream of batches: few are in memory at a time.

What cannot be read as meant is skipped and told of by name: among a hundred thousand files some are broken, and that is
no reason to end. What is in which batch depends on the folder's listing alone, so that a stream may be gone on with later.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from netlapse.data.images import SUFFIXES, read_image
from netlapse.types import Float32, Int64, UInt8

Fit = Literal["stretch", "crop"]

AHEAD = 2
"""How many batches are read before they are asked for."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The images below a folder, in the order of their paths; an image's index is its place here.

    names   paths relative to the root, with "/"         sizes   in bytes; -1 for a link to nowhere
    others  how many files were passed over, as they do not end like an image
    """

    root: Path
    names: Sequence[str]
    sizes: Sequence[int]
    others: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """Of all names and sizes: equal where the same files are there, wherever the folder is."""
        digest = hashlib.sha256()
        for name, size in zip(self.names, self.sizes):
            digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def shown(self, index: int) -> str:
        """An image's name as it can be written anywhere, also where the disk's is no text."""
        return self.names[index].encode("utf-8", "backslashreplace").decode()


def listing(root: str | Path) -> Listing:
    """The images below a folder, in all its folders. Hidden files and folders are passed over, links to folders not followed.

    Raises FileNotFoundError without the folder, ValueError where it holds no images, and OSError for a folder in it that
    cannot be looked into.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of images at {root.absolute()}; give one that holds images, in folders or not")
    found: list[str] = []
    others = 0
    for folder, folders, files in os.walk(root, onerror=_unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen = [name for name in files if not name.startswith(".")]
        images = [name for name in seen if os.path.splitext(name)[1].lower() in SUFFIXES]
        others += len(seen) - len(images)
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in images]
    if not found:
        raise ValueError(
            f"{root.absolute()} holds no images but {others} other files; images are files, here or in folders below, that end in "
            f"{', '.join(SUFFIXES)}"
        )
    found.sort()
    return Listing(root, found, [_size(root / name) for name in found], others)


@dataclass(frozen=True)
class Look:
    """What an image becomes before a network sees it.

    shape      (h, w, c), with 1 channel (ITU-R 601 luma) or 3
    fit        "stretch": to (h, w), as `image_folder` does; "crop": the largest centred part of that shape, without distortion
    mean, deviation   per channel, as in the training of the network: what it sees is (image - mean) / deviation; () for none
    Raises ValueError for another fit, shapes that are no image's, and numbers that are not one per channel.
    """

    shape: tuple[int, int, int]
    fit: Fit = "stretch"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1 or self.shape[2] not in (1, 3):
            raise ValueError(f"images were asked for in shape {self.shape}; expected (height, width, channels) with 1 channel or 3")
        if self.fit not in get_args(Fit):
            raise ValueError(f"images are to be fitted by {self.fit!r}; allowed are 'stretch' and 'crop'")
        for name in ("mean", "deviation"):
            if len(getattr(self, name)) not in (0, self.shape[2]):
                raise ValueError(f"{name} is {list(getattr(self, name))}; expected {self.shape[2]} numbers, one per channel, or none")
        if not all(value > 0 for value in self.deviation):
            raise ValueError(f"deviation is {list(self.deviation)}; expected numbers above 0")

    def read(self, path: Path) -> UInt8:
        """(h, w, c) the image before it is scaled; raises ValueError where it cannot be read as meant."""
        height, width, channels = self.shape
        image = read_image(path, grey=channels == 1)
        if self.fit == "crop":
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        elif image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(self.shape)

    def scaled(self, pixels: UInt8) -> Float32:
        """(n, h, w, c) as the network sees images: in [0, 1], and with mean and deviation from there."""
        seen = pixels.astype(np.float32)
        seen /= 255
        if self.mean:
            seen -= np.asarray(self.mean, np.float32)
        if self.deviation:
            seen /= np.asarray(self.deviation, np.float32)
        return seen


@dataclass(frozen=True, eq=False)
class Batch:
    """Images number `start` to `stop` of a listing.

    indices  (b,) of those that could be read        inputs  (b, h, w, c) float32
    unread   index -> why, of the others
    """

    start: int
    stop: int
    indices: Int64
    inputs: Float32
    unread: dict[int, str] = field(default_factory=dict)


def batches(images: Listing, look: Look, *, batch_size: int = 64, threads: int = 4, start: int = 0) -> Iterator[Batch]:
    """The images of a listing from number `start`, in order, read by some threads ahead of whoever looks at them.

    Batches begin at multiples of `batch_size` whatever could be read. At most `AHEAD` + 1 batches are in memory, and for
    each thread the image that it reads.

    Raises ValueError for a start that begins no batch and for numbers below 1, and FileNotFoundError for a file that was
    listed and is gone: what the index of an image means would no longer be known.
    """
    if batch_size < 1 or threads < 1:
        raise ValueError(f"images were asked for in batches of {batch_size} by {threads} threads; expected at least 1 each")
    if start % batch_size and start != len(images):
        raise ValueError(f"a stream was asked to go on at image {start}, and batches of {batch_size} begin at multiples of {batch_size}")
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, list[Future[UInt8 | str]]]] = deque()
    ahead = iter(range(start, len(images), batch_size))

    def ask() -> None:
        if (first := next(ahead, None)) is not None:
            last = min(first + batch_size, len(images))
            waiting.append((first, [pool.submit(_read, images, look, index) for index in range(first, last)]))

    try:
        for _ in range(AHEAD):
            ask()
        while waiting:
            first, asked = waiting.popleft()
            ask()
            found = [each.result() for each in asked]
            unread = {first + place: why for place, why in enumerate(found) if isinstance(why, str)}
            pixels = [one for one in found if not isinstance(one, str)]
            indices = np.array([first + place for place, one in enumerate(found) if not isinstance(one, str)], np.int64)
            inputs = look.scaled(np.stack(pixels) if pixels else np.empty((0, *look.shape), np.uint8))
            stop = first + len(found)
            del asked, found, pixels
            yield Batch(first, stop, indices, inputs, unread)
    finally:
        pool.shutdown(cancel_futures=True)


def chosen(images: Listing, look: Look, indices: Int64, *, threads: int = 4) -> UInt8:
    """(m, h, w, c) some images, before they are scaled; raises ValueError for one that could be read before and now cannot."""
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda index: _read(images, look, int(index)), indices))
    for why in found:
        if isinstance(why, str):
            raise ValueError(f"an image that was read a while ago cannot be read now: {why}")
    return np.stack([one for one in found if not isinstance(one, str)]) if found else np.empty((0, *look.shape), np.uint8)


def _read(images: Listing, look: Look, index: int) -> UInt8 | str:
    """An image, or why it cannot be read, in a sentence that begins with its name."""
    path, name = images.path(index), images.shown(index)
    try:
        if os.path.lexists(path) and not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{name} is no file, or a link to none; remove it")
        return look.read(path)
    except Exception as error:  # Pillow raises almost anything for what is broken
        if images.sizes[index] >= 0 and not os.path.lexists(path):
            raise FileNotFoundError(
                f"{path} was there when the folder was listed, and is gone; let the folder be as it was, and begin again"
            ) from error
        said = str(error).replace(str(path), name)
        return said if said.startswith(name) else f"{name} cannot be read ({type(error).__name__}: {said})"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a link to nowhere: that it cannot be read is found when it is


def _unlisted(error: OSError) -> None:
    raise OSError(f"the folder {error.filename} cannot be looked into ({error.strerror}); make it readable, or move it elsewhere") from error
