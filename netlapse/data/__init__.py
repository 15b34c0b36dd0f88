"""Data to train on and to probe with: numpy arrays, channels-last, in a `Dataset`; importing this imports no framework."""

from netlapse.data.biased import coloured, rotated
from netlapse.data.bundled import digits, mnist5000
from netlapse.data.celeba import celeba
from netlapse.data.dataset import Dataset, stratified_split
from netlapse.data.images import image_csv, image_folder
from netlapse.data.keras_datasets import keras_dataset
from netlapse.data.relabel import relabelled

__all__ = [
    "Dataset",
    "celeba",
    "coloured",
    "digits",
    "image_csv",
    "image_folder",
    "keras_dataset",
    "mnist5000",
    "relabelled",
    "rotated",
    "stratified_split",
]
