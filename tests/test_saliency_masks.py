"""Laws of masks from files: each input has its own, whatever the order, the file and the size, and none is guessed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netlapse.analysis.saliency import gradient, masks_from_boxes, masks_from_file, masks_from_folder, mass_inside, panel_of, saliency
from netlapse.backends.torch import TorchNetwork
from netlapse.types import Array, Float32, ProbeSet, Snapshot
from tests.test_saliency_methods import linear

IDS = ("cat/b.JPG", "cat/a.jpg", "v1.5", "7")
SIZE = (9, 7)


def probe(ids: tuple[str, ...] = IDS, size: tuple[int, ...] = SIZE) -> ProbeSet:
    rng = np.random.default_rng(0)
    return ProbeSet(rng.random((len(ids), *size, 1), np.float32), np.arange(len(ids)) // 2, ids=np.array(ids))


def drawn(height: int = SIZE[0], width: int = SIZE[1]) -> dict[str, np.ndarray]:
    """A mask of its own for each id: (h, w) uint8, 0 and 255."""
    rng = np.random.default_rng(1)
    return {name: (rng.random((height, width)) < 0.4).astype(np.uint8) * 255 for name in IDS}


def in_folder(folder: Path, masks: dict[str, np.ndarray]) -> Callable[[ProbeSet], Array]:
    for name, mask in masks.items():
        path = folder / f"{name.removesuffix('.JPG').removesuffix('.jpg')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return partial(masks_from_folder, folder=folder)


def in_file(folder: Path, masks: dict[str, np.ndarray]) -> Callable[[ProbeSet], Array]:
    names = sorted(masks)
    np.savez(folder / "masks.npz", ids=np.array(names), masks=np.stack([masks[name] > 0 for name in names]))
    return partial(masks_from_file, path=folder / "masks.npz")


def in_boxes(folder: Path, masks: dict[str, np.ndarray]) -> Callable[[ProbeSet], Array]:
    """Each pixel inside is a box of its own."""
    rows = [
        f"{name},{y},{x},{y + 1},{x + 1},{mask.shape[0]},{mask.shape[1]}"
        for name, mask in sorted(masks.items())
        for y, x in np.argwhere(mask > 0).tolist()
    ]
    (folder / "boxes.csv").write_text("\n".join(["id,top,left,bottom,right,height,width", *rows]))
    return partial(masks_from_boxes, csv=folder / "boxes.csv", size_columns=["height", "width"])


SOURCES = pytest.mark.parametrize("source", [in_folder, in_file, in_boxes])
Source = Callable[[Path, dict[str, np.ndarray]], Callable[[ProbeSet], Array]]


@SOURCES
def test_each_input_has_the_mask_of_its_id(source: Source, tmp_path: Path) -> None:
    masks = drawn()
    read = source(tmp_path, masks)
    for ids in (IDS, IDS[::-1], IDS[2:3]):
        found = read(probe(ids))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [masks[name] / 255 for name in ids])


@SOURCES
@pytest.mark.parametrize("size", [(18, 21), (5, 3), (40, 3)])
def test_masks_of_another_size_are_stretched_by_the_nearest_pixel(source: Source, size: tuple[int, int], tmp_path: Path) -> None:
    masks = drawn(*size)
    expected = [np.asarray(Image.fromarray(masks[name]).resize(SIZE[::-1], Image.Resampling.NEAREST)) / 255 for name in IDS]
    np.testing.assert_array_equal(source(tmp_path, masks)(probe()), expected)


@SOURCES
def test_an_input_without_a_mask_is_named(source: Source, tmp_path: Path) -> None:
    masks = drawn()
    del masks["cat/a.jpg"], masks["7"]
    with pytest.raises(ValueError, match=r"has no mask for 2 of 4 inputs, with the ids \['cat/a.jpg', '7'\]; expected "):
        source(tmp_path, masks)(probe())
    with pytest.raises(ValueError, match=r"masks are of images \(n, h, w, c\); this probe's inputs have shape \(4, 9\)"):
        source(tmp_path, masks)(ProbeSet(np.zeros((4, 9), np.float32), np.zeros(4, int), ids=np.array(IDS)))


def test_grey_counts_by_its_share_and_its_scale_is_not_guessed(tmp_path: Path) -> None:
    masks = {name: np.full(SIZE, value, np.uint8) for name, value in zip(IDS, (0, 20, 60, 80))}
    read = in_folder(tmp_path, masks)
    with pytest.raises(ValueError, match=r"hold grey values up to 80; expected 0 outside to 255 wholly inside: say which value is, with `inside`"):
        read(probe())
    with pytest.raises(ValueError, match=r"up to 80; expected 0 outside to 60 wholly inside"):
        read(probe(), inside=60)  # type: ignore[call-arg]
    np.testing.assert_allclose(read(probe(), inside=80)[:, 0, 0], [0, 0.25, 0.75, 1])  # type: ignore[call-arg]
    assert not read(probe(IDS[:1])).any()  # an input without the object
    for inside in (0, 256):
        with pytest.raises(ValueError, match=rf"inside={inside}; expected the grey value that is wholly inside, from 1 to 255"):
            read(probe(), inside=inside)  # type: ignore[call-arg]


def test_what_is_no_folder_of_masks_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder of masks at .*nowhere; expected one image per input"):
        masks_from_folder(probe(), folder=tmp_path / "nowhere")
    read = in_folder(tmp_path, drawn())
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "7.bmp")
    with pytest.raises(ValueError, match=r"7\.png, .*7\.bmp are of one input; keep one of them"):
        read(probe())
    (tmp_path / "7.bmp").unlink()
    (tmp_path / "7.png").write_text("no image")
    with pytest.raises(ValueError, match=r"7\.png cannot be read as an image"):
        read(probe())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": np.ones((2, 3, 3))}, "does not hold masks .*ids.*; expected an .npz file"),
        ({"ids": np.array(["a", "b"]), "masks": np.ones((2, 9))}, r"ids \(2,\), 2 of them distinct, and masks \(2, 9\); expected"),
        ({"ids": np.array(["a", "b", "c"]), "masks": np.ones((2, 9, 7))}, r"ids \(3,\), 3 of them distinct, and masks \(2, 9, 7\)"),
        ({"ids": np.array(["a", "a"]), "masks": np.ones((2, 9, 7))}, r"ids \(2,\), 1 of them distinct"),
        ({"ids": np.array(["a", {}], object), "masks": np.ones((2, 9, 7))}, r"does not hold masks \(.*allow_pickle"),
    ],
)
def test_what_is_no_file_of_masks_is_said(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "masks.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        masks_from_file(probe(), path=tmp_path / "masks.npz")


def test_a_file_that_is_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no masks at .*none.npz; expected an .npz file"):
        masks_from_file(probe(), path=tmp_path / "none.npz")
    path = tmp_path / "masks.npz"
    in_file(tmp_path, drawn())
    whole = path.read_bytes()
    np.save(tmp_path / "masks.npy", np.ones((4, *SIZE)))
    for content in (whole[: len(whole) // 2], b"", b"no zip at all", (tmp_path / "masks.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"masks.npz does not hold masks"):
            masks_from_file(probe(), path=path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "7,0,0,9,8",
            r"boxes.csv, line 3: boxes hold one without a pixel, or beyond the image: expected 0 <= top.* <= 9, 0 <= left.* <= 7",
        ),
        ("7,3,0,3,1", "line 3: boxes hold one without a pixel"),
        ("7,nan,0,3,1", "line 3: boxes hold one without a pixel"),
        ("7,a,0,3,1", "line 3: could not convert string to float: 'a'"),
        ("7,,0,3,1", r"line 3: no value in \['top'\]"),
    ],
)
def test_a_box_that_cannot_be_is_named_by_its_line(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(f"id,top,left,bottom,right\nunasked,0,0,500,500\n{row}\n")
    with pytest.raises(ValueError, match=message):
        masks_from_boxes(probe(("7",)), csv=tmp_path / "boxes.csv")


def test_boxes_are_in_pixels_of_the_inputs_and_columns_go_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("file,x,y,x2,y2\n7,1,2,5,7\n7,0,0,1,1\n")
    read = partial(masks_from_boxes, probe(("7",)), csv=tmp_path / "boxes.csv", id_column="file")
    found = read(box_columns=["y", "x", "y2", "x2"])
    expected = np.zeros((1, *SIZE))
    expected[0, 2:7, 1:5] = expected[0, 0, 0] = 1
    np.testing.assert_array_equal(found, expected)
    for options in ({"box_columns": ["y", "x"]}, {"size_columns": ["y"]}):
        with pytest.raises(ValueError, match=r"expected the names of top, left, bottom, right, and of height, width or none"):
            read(**options)  # type: ignore[arg-type]


def test_the_analysis_asks_for_the_panels_masks_alone(tmp_path: Path) -> None:
    masks, shown = drawn(), probe()
    panel = panel_of(shown.labels, 3)
    assert panel.tolist() == [0, 2, 1]
    del masks["7"]  # of which nobody has drawn one
    snapshot = Snapshot(TorchNetwork(linear(c=1)), shown, 0)
    found = saliency(snapshot, None, methods=[gradient], panel=3, masks=in_folder(tmp_path, masks))
    inside = np.stack([masks[IDS[i]] / 255 for i in panel])
    assert found.scalars["saliency/mass_inside/gradient"] == pytest.approx(mass_inside(found.arrays["maps/gradient"], inside).mean())
    assert found.scalars["saliency/mass_inside_null/gradient"] == pytest.approx(inside.mean())


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (lambda asked: np.ones((4, *SIZE)), r"masks of shape \(4, 9, 7\); expected \(3, 9, 7\), one for each of the panel's inputs"),
        (lambda asked: np.full((3, *SIZE), 255), r"masks hold values from 255.0 to 255.0; expected 0 \(outside\) to 1"),
        (lambda asked: np.full((3, *SIZE), np.nan), r"masks hold values from nan to nan"),
        (partial(masks_from_folder, folder="nowhere at all"), "no folder of masks"),
    ],
)
def test_masks_that_do_not_fit_are_refused_before_training(masks: Callable[[ProbeSet], Float32], message: str) -> None:
    snapshot = Snapshot(TorchNetwork(linear(c=1)), probe(), 0)
    for ask in (partial(saliency, snapshot, None), partial(saliency.check, snapshot)):  # type: ignore[attr-defined]
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            ask(panel=3, masks=masks)
