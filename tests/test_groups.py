"""Laws of the order of groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.cluster.hierarchy import is_valid_linkage
from scipy.spatial.distance import pdist, squareform

from netlapse.analysis.groups import METHODS, distances, linkage, order, pairwise, present
from netlapse.types import Float64


def profile(groups: int, units: int = 5, seed: int = 0) -> Float64:
    return np.random.default_rng(seed).normal(size=(groups, units))


def joined(between: Float64, method: str) -> list[tuple[frozenset[int], float]]:
    """Agglomerative clustering by its definition: again and again the two nearest clusters become one; the clusters with their heights."""
    clusters = {frozenset([i]) for i in range(len(between))}
    apart = {frozenset([a, b]): float(between[min(a), min(b)]) for a, b in itertools.combinations(clusters, 2)}
    made = []
    while len(clusters) > 1:
        nearest = min(apart, key=lambda pair: apart[pair])
        a, b = nearest
        made.append((a | b, apart[nearest]))
        clusters -= {a, b}
        for other in clusters:
            to_a, to_b = apart[frozenset([a, other])], apart[frozenset([b, other])]
            across = [between[i, j] for i in a | b for j in other]
            apart[frozenset([a | b, other])] = {
                "average": float(np.mean(across)),
                "complete": float(max(across)),
                "single": float(min(across)),
                "weighted": (to_a + to_b) / 2,
            }[method]
        clusters.add(a | b)
        apart = {pair: value for pair, value in apart.items() if pair <= clusters}
    return made


def members(tree: Float64) -> list[frozenset[int]]:
    """The leaves of each cluster that a tree makes."""
    clusters = [frozenset([leaf]) for leaf in range(len(tree) + 1)]
    for left, right, *_ in tree:
        clusters.append(clusters[int(left)] | clusters[int(right)])
    return clusters[len(tree) + 1 :]


def orders(tree: Float64) -> list[list[int]]:
    """Every order of the leaves that a tree allows: each of its joints may be turned."""
    allowed: list[list[list[int]]] = [[[leaf]] for leaf in range(len(tree) + 1)]
    for left, right, *_ in tree.astype(int):
        a, b = allowed[left], allowed[right]
        allowed.append([x + y for x in a for y in b] + [y + x for x in a for y in b])
    return allowed[-1]


@pytest.mark.parametrize("metric", ["cosine", "correlation", "euclidean"])
def test_distances_are_those_of_scipy_where_every_group_has_a_direction(metric):
    np.testing.assert_allclose(distances(profile(7), metric=metric), pdist(profile(7), metric), rtol=1e-12)


def test_a_group_without_a_direction_is_half_a_unit_from_those_with_one_and_alike_to_its_like():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [-4.0, 3.0]])
    expected = [[0, 0.5, 0.5, 1], [0.5, 0, 0, 0.5], [0.5, 0, 0, 0.5], [1, 0.5, 0.5, 0]]
    np.testing.assert_allclose(squareform(distances(rows)), expected, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [2, 3, 6, 9])
def test_the_tree_is_that_of_the_definition(method, groups):
    tree = linkage(profile(groups), method=method)
    expected = joined(squareform(distances(profile(groups))), method)
    assert is_valid_linkage(tree)
    assert members(tree) == [cluster for cluster, _ in expected]
    np.testing.assert_allclose(tree[:, 2], [height for _, height in expected], rtol=1e-12)
    assert tree[:, 3].tolist() == [len(cluster) for cluster, _ in expected]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_of_all_orders_that_the_tree_allows_none_is_shorter(metric, seed):
    values = profile(7, units=3, seed=seed)
    apart = squareform(distances(values, metric=metric))

    def length(leaves):
        return sum(apart[a, b] for a, b in itertools.pairwise(leaves))

    found = order(values, metric=metric).tolist()
    every = orders(linkage(values, metric=metric))
    assert found in every
    assert length(found) == pytest.approx(min(map(length, every)), rel=1e-12)
    assert length(found) < max(map(length, every)) * 0.99


@pytest.mark.parametrize("method", METHODS)
def test_of_many_groups_the_order_is_shorter_than_that_of_scipy_which_is_not_the_shortest(method):
    apart = distances(profile(60))
    between = squareform(apart)
    theirs = hierarchy.leaves_list(hierarchy.linkage(apart, method, optimal_ordering=True))
    ours = order(profile(60), method=method)
    assert sorted(ours) == list(range(60))
    assert between[ours[:-1], ours[1:]].sum() < 0.99 * between[theirs[:-1], theirs[1:]].sum()


@pytest.mark.parametrize("seed", range(8))
def test_of_two_directions_it_is_the_one_that_begins_with_the_lower_group(seed):
    found = order(profile(6, seed=seed))
    assert found[0] < found[-1]


def test_groups_on_a_line_come_in_its_order_however_they_are_numbered():
    rng = np.random.default_rng(3)
    shuffled = rng.permutation(12)
    line = np.array([0, 1, 2.1, 4.5, 5, 6.2, 11, 12.5, 13, 20, 21.5, 22])
    found = line[shuffled][order(np.stack([line[shuffled], np.zeros(12)], axis=1), metric="euclidean")]
    assert found.tolist() in (sorted(found), sorted(found, reverse=True))


def test_groups_without_inputs_come_last_and_change_nothing():
    values = profile(6)
    holes = np.insert(values, [0, 3, 6], np.nan, axis=0)  # groups 0, 4 and 8
    kept = np.array([1, 2, 3, 5, 6, 7])
    assert present(holes).tolist() == kept.tolist()
    np.testing.assert_array_equal(linkage(holes), linkage(values))
    assert order(holes).tolist() == [*kept[order(values)].tolist(), 0, 4, 8]


def test_one_group_and_none_with_inputs_have_an_order():
    assert linkage(profile(1)).shape == (0, 4)
    assert order(profile(1)).tolist() == [0]
    assert order(np.array([[np.nan, np.nan], [1.0, 2.0]])).tolist() == [1, 0]
    assert order(np.full((3, 2), np.nan)).tolist() == [0, 1, 2]


def test_identical_groups_are_joined_at_zero_and_stay_together():
    values = profile(3)[[0, 1, 0, 2, 0]]
    tree = linkage(values)
    np.testing.assert_allclose(tree[:2, 2], 0, atol=1e-15)
    places = np.argsort(order(values))[[0, 2, 4]]
    assert np.ptp(places) == 2
    assert sorted(order(np.ones((4, 3))).tolist()) == [0, 1, 2, 3]


def test_pairwise_is_row_minus_column():
    values = np.array([[1.0, 5.0], [np.nan, np.nan], [4.0, 2.0]])
    found = pairwise(values)
    assert found[0, 2].tolist() == [-3, 3]
    assert found[2, 0].tolist() == [3, -3]
    assert found[0, 0].tolist() == [0, 0]
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()


def test_errors_say_what_was_received_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"unknown metric 'cosin'; allowed are \['euclidean', 'cosine', 'correlation'\]"):
        linkage(profile(1), metric="cosin")
    with pytest.raises(ValueError, match=r"unknown method 'ward' to join groups; allowed are \['average', 'complete', 'single', 'weighted'\]"):
        order(profile(3), method="ward")
    with pytest.raises(ValueError, match=r"has shape \(3,\); expected \(g, u\)"):
        linkage(np.zeros(3))
    broken = profile(3)
    broken[1, [0, 2]] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"groups \[1\] hold NaN or infinity in some of their units, 2 of 5 units in all; leave those units out"):
        order(broken)
    with pytest.raises(ValueError, match=r"a profile of shape \(2, 2, 2\); expected \(g, u\)"):
        pairwise(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"pairwise contrasts of 20000 groups and 3 units would take 8\.9 GiB, more than 8; take fewer groups"):
        pairwise(np.zeros((20000, 3)))
