"""Laws of images in a folder that stream past in batches, few of them in memory."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netlapse.data import image_folder
from netlapse.data import stream as module
from netlapse.data.stream import AHEAD, Batch, Look, batches, chosen, listing
from netlapse.types import UInt8

GREY = Look((6, 5, 1))
COLOUR = Look((6, 5, 3))


def encoded(pixels: UInt8, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def noise(shape: tuple[int, ...], seed: int = 0) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """23 images of many sizes, grey and colour, three formats, in folders of folders."""
    root = tmp_path / "photos"
    for i in range(23):
        folder = root / ("a", "a/deep/er", "b", "")[i % 4]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (4 + i % 5, 7 + i % 3, 3) if i % 2 else (4 + i % 5, 7 + i % 3)
        kind = ("png", "jpg", "bmp")[i % 3]
        (folder / f"{i:02d}.{kind}").write_bytes(encoded(noise(shape, i), {"jpg": "JPEG"}.get(kind, kind)))
    return root


@contextmanager
def nobody() -> Iterator[None]:
    """Inside, the process may do what the files' modes allow; root may do anything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that anybody may look into: pytest's own are for their owner."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def together(found: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([batch.indices for batch in found]), np.concatenate([batch.inputs for batch in found])


# ---- which images there are ----------------------------------------------------------------------------------------------


def test_images_are_listed_below_all_folders_by_path_and_hidden_ones_are_not(tree: Path) -> None:
    for name in (".hidden.png", ".folder/a.png", "a/.other/b.png", "notes.txt", "a/film.mp4"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree / "b" / "LOUD.JPG").write_bytes(b"")
    images = listing(tree)
    expected = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.suffix in (".png", ".jpg", ".bmp", ".JPG") and "/." not in str(p))
    assert len(expected) == 24
    assert list(images.names) == expected
    assert list(images.sizes) == [(tree / name).stat().st_size for name in expected]
    assert images.others == 2


def test_the_digest_is_of_paths_and_sizes_wherever_the_folder_is(tree: Path, tmp_path: Path) -> None:
    before = listing(tree).sha256
    shutil.copytree(tree, tmp_path / "elsewhere")
    assert listing(tmp_path / "elsewhere").sha256 == before
    (tree / "b" / "02.bmp").rename(tree / "b" / "2.bmp")
    renamed = listing(tree).sha256
    assert renamed != before
    with (tree / "b" / "2.bmp").open("ab") as file:
        file.write(b"x")
    assert listing(tree).sha256 not in (before, renamed)
    # "a" of 12 bytes and "b" of 3 are not "a" of 1 byte and "23b".
    assert module.Listing(tree, ["a", "b"], [12, 3]).sha256 != module.Listing(tree, ["a1", "b"], [2, 3]).sha256


def test_without_a_folder_or_images_it_is_said_what_to_give(tmp_path: Path, open_place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder of images at .*nowhere; give one that holds images"):
        listing(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds no images but 1 other files; images are files, .* that end in \.png, \.jpg"):
        listing(tmp_path / "empty")
    (open_place / "closed").mkdir(mode=0o000)
    (open_place / "a.png").write_bytes(b"")
    with nobody(), pytest.raises(OSError, match=r"the folder .*closed cannot be looked into .*make it readable"):
        listing(open_place)


# ---- what they become ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
def test_they_are_what_image_folder_makes_of_them(tree: Path, grey: bool, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    for name in ("one", "two"):
        shutil.copytree(tree / "a" / "deep" / "er", labelled / name)
    data = image_folder(labelled, (6, 5), grey=grey)
    images = listing(labelled)
    indices, inputs = together(list(batches(images, GREY if grey else COLOUR, batch_size=3)))
    np.testing.assert_array_equal(indices, range(len(images)))
    assert data.train_ids is not None
    assert data.test_ids is not None
    known = dict(zip([*data.train_ids, *data.test_ids], np.concatenate([data.train_inputs, data.test_inputs])))
    assert set(known) == set(images.names)
    np.testing.assert_array_equal(inputs, [known[name] for name in images.names], strict=True)


def test_cropping_takes_the_largest_centred_part_and_does_not_stretch(tmp_path: Path) -> None:
    wide, tall = noise((4, 10, 3), 1), noise((10, 4, 3), 2)
    for name, pixels in (("wide", wide), ("tall", tall)):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels))
    _, found = together(list(batches(listing(tmp_path), Look((4, 4, 3), "crop"))))
    np.testing.assert_array_equal(found[0], tall[3:7].astype(np.float32) / 255)
    np.testing.assert_array_equal(found[1], wide[:, 3:7].astype(np.float32) / 255)
    _, stretched = together(list(batches(listing(tmp_path), Look((4, 4, 3)))))
    assert not np.array_equal(stretched, found)


def test_mean_and_deviation_are_taken_per_channel(tree: Path) -> None:
    _, plain = together(list(batches(listing(tree), COLOUR)))
    _, scaled = together(list(batches(listing(tree), replace(COLOUR, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)))))
    assert plain.min() >= 0
    assert plain.max() <= 1
    for channel, (mean, deviation) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))):
        np.testing.assert_allclose(scaled[..., channel], (plain[..., channel] - mean) / deviation, rtol=1e-5, atol=1e-6)  # float32


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((6, 5), np.uint8)
    upright[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    (tmp_path / "a.png").write_bytes(encoded(np.rot90(upright), exif=exif))
    _, found = together(list(batches(listing(tmp_path), GREY)))
    np.testing.assert_array_equal(found[0, ..., 0], upright.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (6, 5, 2)}, r"in shape \(6, 5, 2\); expected \(height, width, channels\) with 1 channel or 3"),
        ({"shape": (0, 5, 3)}, r"in shape \(0, 5, 3\)"),
        ({"fit": "squeeze"}, "fitted by 'squeeze'; allowed are 'stretch' and 'crop'"),
        ({"mean": (0.5,)}, r"mean is \[0.5\]; expected 3 numbers, one per channel"),
        ({"deviation": (0.5, 0.0, 0.5)}, r"deviation is \[0.5, 0.0, 0.5\]; expected numbers above 0"),
    ],
)
def test_a_look_that_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(COLOUR, **options)  # type: ignore[arg-type]


# ---- the stream ----------------------------------------------------------------------------------------------------------


def test_the_order_in_which_threads_end_changes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = listing(tree)
    expected = together(list(batches(images, COLOUR, batch_size=4, threads=1)))
    read, ended = module.read_image, []

    def slow(path: Path, grey: bool) -> Image.Image:
        index = images.names.index(path.relative_to(tree).as_posix())
        time.sleep(0.02 * (3 - index % 4))  # the first of a batch last
        ended.append(index)
        return read(path, grey)

    monkeypatch.setattr(module, "read_image", slow)
    found = together(list(batches(images, COLOUR, batch_size=4, threads=8)))
    assert ended != sorted(ended)
    for mine, theirs in zip(found, expected):
        np.testing.assert_array_equal(mine, theirs, strict=True)


def broken(root: Path) -> dict[str, str]:
    """Files that are no images as meant, by what is said of them."""
    jpeg = encoded(noise((40, 40, 3)), "JPEG")
    png = encoded(noise((40, 40, 3)))
    contents = {
        "a/empty.png": (b"", "cannot be read as an image"),
        "a/cut.jpg": (jpeg[: len(jpeg) // 2], "cannot be read as an image .*[Tt]runcated"),
        "a/cut.png": (png[: len(png) // 2], "cannot be read as an image"),
        "b/text.png": (b"a letter", "cannot be read as an image"),
        "b/sixteen.png": (encoded(np.arange(30, dtype=np.uint16).reshape(6, 5) * 999), "more than 8 bits"),  # type: ignore[arg-type]
        "clear.png": (encoded(noise((6, 5, 4))), "is transparent in places"),
        "crossed.tif": (b"II*\0" + b"\xff" * 200, "cannot be read"),
    }
    for name, (data, _) in contents.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(data)
    (root / "b" / "nowhere.png").symlink_to("no-such-file.png")
    os.mkfifo(root / "b" / "pipe.png")  # would be waited for
    (root / "folder.png").mkdir()  # a folder may be named so
    return {name: words for name, (_, words) in contents.items()} | {"b/nowhere.png": "is no file", "b/pipe.png": "is no file"}


def test_what_cannot_be_read_is_skipped_and_named_with_the_reason(tree: Path) -> None:
    whole = listing(tree)
    pixels = dict(zip(whole.names, together(list(batches(whole, COLOUR)))[1]))
    words = broken(tree)
    images = listing(tree)
    found = list(batches(images, COLOUR, batch_size=4))
    why = {images.names[index]: said for batch in found for index, said in batch.unread.items()}
    assert set(why) == set(words)
    for name, said in why.items():
        assert said.startswith(name)
        assert str(tree) not in said
        assert re.search(words[name], said), said
    indices, inputs = together(found)
    assert [images.names[index] for index in indices] == sorted(pixels)
    np.testing.assert_array_equal(inputs, [pixels[name] for name in sorted(pixels)])


def test_what_may_not_be_read_is_skipped_and_named(open_place: Path) -> None:
    for name in "abc":
        (open_place / f"{name}.png").write_bytes(encoded(noise((6, 5))))
        (open_place / f"{name}.png").chmod(0o644)
    (open_place / "b.png").chmod(0o000)
    with nobody():
        (batch,) = batches(listing(open_place), GREY)
    assert batch.indices.tolist() == [0, 2]
    assert batch.unread == {1: "b.png cannot be read as an image ([Errno 13] Permission denied: 'b.png'); replace or remove it"}


def test_an_error_that_pillow_never_announced_is_the_files_own(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = module.read_image

    def failing(path: Path, grey: bool) -> Image.Image:
        if path.name == "04.jpg":
            raise IndexError("index out of range")
        return read(path, grey)

    monkeypatch.setattr(module, "read_image", failing)
    images = listing(tree)
    unread = {index: why for batch in batches(images, GREY, batch_size=4) for index, why in batch.unread.items()}
    assert unread == {images.names.index("a/04.jpg"): "a/04.jpg cannot be read (IndexError: index out of range)"}


def test_what_is_in_a_batch_depends_on_the_listing_alone_so_a_stream_can_be_gone_on_with(tree: Path) -> None:
    broken(tree)
    images = listing(tree)
    whole = list(batches(images, COLOUR, batch_size=4))
    assert [(batch.start, batch.stop) for batch in whole] == [(i, min(i + 4, len(images))) for i in range(0, len(images), 4)]
    for batch in whole:
        assert sorted([*batch.indices, *batch.unread]) == list(range(batch.start, batch.stop))
    for start in range(0, len(images), 4):
        rest = list(batches(images, COLOUR, batch_size=4, start=start))
        for mine, theirs in zip(rest, whole[start // 4 :], strict=True):
            np.testing.assert_array_equal(mine.indices, theirs.indices)
            np.testing.assert_array_equal(mine.inputs, theirs.inputs, strict=True)
            assert mine.unread == theirs.unread
    assert list(batches(images, COLOUR, batch_size=5, start=len(images))) == []
    assert len(images) % 5


def test_a_file_that_has_gone_since_it_was_listed_ends_the_stream(tree: Path) -> None:
    """As where a disk is unplugged: else all the rest would be taken for broken."""
    images = listing(tree)
    shutil.rmtree(tree / "b")
    with pytest.raises(FileNotFoundError, match=r"b/.* was there when the folder was listed, and is gone; let the folder be as it was"):
        list(batches(images, COLOUR, batch_size=4))


def test_what_cannot_be_asked_of_a_stream_is_refused(tree: Path) -> None:
    images = listing(tree)
    with pytest.raises(ValueError, match="batches of 0 by 4 threads; expected at least 1"):
        next(batches(images, GREY, batch_size=0))
    with pytest.raises(ValueError, match="go on at image 5, and batches of 4 begin at multiples of 4"):
        next(batches(images, GREY, batch_size=4, start=5))


def test_chosen_images_are_those_of_the_stream_before_they_are_scaled(tree: Path) -> None:
    images = listing(tree)
    _, inputs = together(list(batches(images, COLOUR)))
    picked = np.array([7, 0, 22, 7])
    np.testing.assert_array_equal(COLOUR.scaled(chosen(images, COLOUR, picked)), inputs[picked], strict=True)
    assert chosen(images, COLOUR, np.array([], np.int64)).shape == (0, 6, 5, 3)
    (tree / images.names[7]).write_bytes(b"no image any more")
    with pytest.raises(ValueError, match=f"read a while ago cannot be read now: {images.names[7]} cannot be read as an image"):
        chosen(images, COLOUR, picked)


# ---- memory ----------------------------------------------------------------------------------------------------------------


def test_no_more_is_read_ahead_than_is_said_and_an_abandoned_stream_leaves_no_thread(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = module.read_image, []

    def counted(path: Path, grey: bool) -> Image.Image:
        seen.append(path)
        return read(path, grey)

    monkeypatch.setattr(module, "read_image", counted)
    before = threading.active_count()
    stream = batches(listing(tree), GREY, batch_size=3, threads=2)
    next(stream)
    time.sleep(0.3)  # time enough to read all of them
    assert len(seen) == 3 * (AHEAD + 1)
    stream.close()
    assert threading.active_count() == before
    assert len(seen) == 3 * (AHEAD + 1)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """All 3,000 would take 24 MB as bytes and 98 MB as floats."""
    data = encoded(noise((8, 8)))
    look, batch_size = Look((64, 128, 1)), 32
    for i in range(3000):
        (tmp_path / f"{i:04d}.png").write_bytes(data)

    def peak(n: int) -> int:
        images = listing(tmp_path)
        some = module.Listing(images.root, images.names[:n], images.sizes[:n])
        tracemalloc.start()
        try:
            assert sum(len(batch.indices) for batch in batches(some, look, batch_size=batch_size)) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is allocated once
    few, many = peak(600), peak(3000)
    image = 64 * 128
    # The batches ahead and their stack as bytes, two batches as floats (one is made while the other is let go), and room for Python's own.
    assert many < batch_size * image * (AHEAD + 3 + 2 * 4) + 2**20
    assert many < few + 2**19  # less than 64 images, of 2,400 more
