"""What every test may rely on: nothing of the test before it, and the same draws whichever tests came before."""

from __future__ import annotations

import os
import random

import keras
import mlflow
import numpy as np
import pytest
import torch


@pytest.mark.parametrize("again", [False, True])
def test_a_test_starts_from_the_seed_and_in_no_store_of_another(again: bool) -> None:
    seed = int(os.environ["NETLAPSE_TEST_SEED"])
    assert random.random() == random.Random(seed).random()
    assert np.random.random() == np.random.RandomState(seed).random()  # noqa: NPY002 - the global state, which libraries use
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    assert "elsewhere" not in mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")  # as Lightning's logger does, for the whole process


@pytest.mark.parametrize("again", [False, True])
def test_keras_starts_from_the_seed(again: bool) -> None:
    drawn = keras.ops.convert_to_numpy(keras.random.uniform((3,)))
    keras.utils.set_random_seed(int(os.environ["NETLAPSE_TEST_SEED"]))
    np.testing.assert_array_equal(drawn, keras.ops.convert_to_numpy(keras.random.uniform((3,))))
