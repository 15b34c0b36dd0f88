"""The classic image sets through keras.datasets, which keeps them in ~/.keras/datasets: a torch training may use them too."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netlapse.data.bundled import DIGIT_NAMES
from netlapse.data.dataset import Dataset, Float32

# fmt: off
# Class names as published with the data: Xiao et al., 2017, table 2; Krizhevsky, 2009 (batches.meta and meta).
CLASS_NAMES = {
    "mnist": DIGIT_NAMES,
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy", "bridge", "bus",
        "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
        "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse",
        "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
        "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
        "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television",
        "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ),
}
CIFAR100_SUPERCLASSES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices", "household_furniture",
    "insects", "large_carnivores", "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores",
    "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)
# fmt: on

_TENSORFLOW = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_FASHION = ("train-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz")
# Where keras.datasets looks, under <keras home>/datasets, and where each file comes from.
_FILES = {
    "mnist": {"mnist.npz": f"{_TENSORFLOW}mnist.npz"},
    "fashion_mnist": {f"fashion-mnist/{file}": f"{_TENSORFLOW}{file}" for file in _FASHION},
    "cifar10": {"cifar-10-batches-py-target_archive": f"{_TORONTO}cifar-10-python.tar.gz"},
    "cifar100": {"cifar-100-python-target_archive": f"{_TORONTO}cifar-100-python.tar.gz"},
}
_CONNECT_SECONDS = 15


def keras_dataset(name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]) -> Dataset:
    """A data set of keras.datasets with its own train and test parts; ids are "train/<row>" and "test/<row>".

    CIFAR-100 has its 100 fine labels and the attribute "superclass". A process that has imported torch stays free of
    TensorFlow.

    Raises ValueError for another name, ModuleNotFoundError without keras, and OSError where the data are neither
    stored nor to be had from the network, saying which file to put where.
    """
    if name not in CLASS_NAMES:
        raise ValueError(f"no keras data set named {name!r}; available are {list(CLASS_NAMES)}")
    # Keras loads its backend when imported, TensorFlow where nothing else is said: slow, and two frameworks in one
    # process compete for threads and GPU memory. Left set, so that worker processes choose the same.
    if "keras" not in sys.modules and "torch" in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"data set {name!r} is read by keras.datasets ({error}); pip install 'netlapse[keras]', or use mnist5000 or digits", name=error.name
        ) from error
    source = getattr(keras.datasets, name)
    # keras.datasets waits without limit for a host that does not answer.
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        train, test = source.load_data()
        coarse = [labels for _, labels in source.load_data(label_mode="coarse")] if name == "cifar100" else []
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise OSError(f"keras.datasets.{name} could not be loaded ({error}); {_by_hand(name)}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    channels_first = keras.config.image_data_format() == "channels_first"
    attributes = [{"superclass": np.asarray(CIFAR100_SUPERCLASSES)[labels.ravel()]} for labels in coarse] or [{}, {}]
    return Dataset(
        name,
        _images(train[0], channels_first),
        train[1].ravel().astype(np.int64),
        _images(test[0], channels_first),
        test[1].ravel().astype(np.int64),
        CLASS_NAMES[name],
        attributes[0],
        attributes[1],
        np.asarray([f"train/{row}" for row in range(len(train[1]))]),
        np.asarray([f"test/{row}" for row in range(len(test[1]))]),
    )


def _images(pixels: NDArray[np.uint8], channels_first: bool) -> Float32:
    """(n, h, w, c) in [0, 1] from Keras' (n, h, w), or colour images in the order that Keras' own setting says."""
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif channels_first:
        pixels = pixels.transpose(0, 2, 3, 1)
    images = pixels.astype(np.float32)
    images /= 255
    return images


def _by_hand(name: str) -> str:
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    steps = "; ".join(f"{url} as {folder / path}" for path, url in _FILES[name].items())
    return f"without a network, download by hand: {steps}. KERAS_HOME moves ~/.keras; mnist5000 and digits need no download"
