"""The draw of an epoch: how often each input comes, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from netlapse.callbacks.sampling import drawn


def test_equal_weights_are_training_as_usual_each_input_once_in_another_order_each_epoch() -> None:
    for n in (1, 2, 7, 1000):
        orders = [drawn(np.full(n, 0.3), n, seed=1, epoch=epoch).tolist() for epoch in range(50)]
        assert all(sorted(order) == list(range(n)) for order in orders)
    assert len({tuple(order) for order in orders}) == 50


@pytest.mark.parametrize("seed", range(20))
def test_an_input_comes_as_often_as_its_weight_says_rounded(seed: int) -> None:
    weights = np.random.default_rng(seed).lognormal(0, 2, 200)
    expected = 200 * weights / weights.sum()
    counts = np.bincount(drawn(weights, 200, seed=seed, epoch=3), minlength=200)
    assert (counts >= np.floor(expected - 1e-9)).all()
    assert (counts <= np.ceil(expected + 1e-9)).all()


def test_on_average_it_comes_exactly_so_often_and_anywhere_in_the_epoch() -> None:
    weights = np.array([0.05, 0.4, 0.0, 0.25, 0.3])
    draws = np.stack([drawn(weights, 5, seed=0, epoch=epoch) for epoch in range(20000)])
    # A count is one of two numbers: its variance is at most a quarter, and five standard errors are 0.018; at a place at most likewise.
    np.testing.assert_allclose((draws[..., None] == np.arange(5)).sum(axis=1).mean(axis=0), 5 * weights, atol=0.018)
    np.testing.assert_allclose((draws[..., None] == np.arange(5)).mean(axis=0), np.tile(weights, (5, 1)), atol=0.018)
    assert not (draws == 2).any()


def test_which_inputs_come_together_is_not_told_by_their_order_in_the_data() -> None:
    """Four inputs of weight a half of two draws: of neighbours in a fixed order never both would come."""
    pairs = {tuple(sorted(drawn(np.array([1.0, 1.0, 1.0, 1.0, 0, 0]), 6, seed=0, epoch=epoch)[:2].tolist())) for epoch in range(200)}
    assert {(a, b) for a in range(4) for b in range(a + 1, 4)} <= pairs


def test_the_draw_is_one_of_seed_and_epoch_and_scale_does_not_matter() -> None:
    weights = np.random.default_rng(0).random(30)
    one = drawn(weights, 30, seed=1, epoch=2)
    np.testing.assert_array_equal(drawn(8 * weights, 30, seed=1, epoch=2), one)
    assert (drawn(weights, 30, seed=1, epoch=3) != one).any()
    assert (drawn(weights, 30, seed=2, epoch=2) != one).any()


def test_unequal_shares_are_filled_up_with_the_first() -> None:
    weights = np.random.default_rng(0).random(7)
    alone, padded = (drawn(weights, total, seed=1, epoch=2).tolist() for total in (7, 9))
    assert padded == [*alone, *alone[:2]]
