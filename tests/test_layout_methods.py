"""Laws of the layouts that optimise: distances, lattices, springs and neighbours."""

from __future__ import annotations

import random as python_random
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from netlapse.analysis.layout import base, flas, graph, mds, metric_space, pacmap, pca, procrustes, random, som, tsne, umap
from netlapse.analysis.layout.lattice import models, nearest, untied
from netlapse.analysis.layout.springs import at_rest, springs
from netlapse.analysis.quality import motion, trustworthiness

METHODS = [mds, som, graph, tsne, umap, pacmap]
METRICS = ["euclidean", "cosine", "correlation"]


def structured(units: int, features: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(units, 3)) @ rng.normal(size=(3, features)), 0) + 0.02 * rng.normal(size=(units, features))


def turned(positions: np.ndarray, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return base.filled((positions - positions.mean(axis=0)) @ turn)


@pytest.mark.parametrize("place", METHODS)
@pytest.mark.parametrize("units", [1, 2, 3, 4, 5, 6, 7, 13, 40])
@pytest.mark.parametrize("features", [1, 2, 60])
def test_positions_are_in_the_unit_square_for_any_number_of_units_and_features(place, units, features):
    profiles = structured(units, features)
    positions = place(profiles, seed=1)
    again = place(profiles * 1.1, seed=1, previous=positions)
    for one in (positions, again):
        assert one.shape == (units, 2)
        assert one.dtype == np.float64
        assert ((one >= 0) & (one <= 1)).all()
        if units > 1:
            assert np.ptp(one, axis=0).max() == pytest.approx(1)
        else:
            np.testing.assert_array_equal(one, [[0.5, 0.5]])


@pytest.mark.parametrize("place", METHODS)
def test_three_units_keep_their_distances(place):
    profiles = np.random.default_rng(0).normal(size=(3, 9))
    ratio = pdist(place(profiles)) / pdist(profiles)
    np.testing.assert_allclose(ratio, ratio[0])


@pytest.mark.parametrize("place", METHODS)
@pytest.mark.parametrize("metric", METRICS)
def test_profiles_that_are_all_the_same_lie_in_the_middle(place, metric):
    np.testing.assert_array_equal(place(np.full((20, 4), 0.1), metric=metric), np.full((20, 2), 0.5))


@pytest.mark.parametrize("place", METHODS)
def test_some_identical_units_stay_together_and_spoil_nothing(place):
    profiles = structured(90)
    profiles[10:40] = 0
    positions = place(profiles)
    others = np.delete(np.arange(90), np.arange(10, 40))
    assert trustworthiness(profiles[others], positions[others]) > 0.85
    centre = np.median(positions[10:40], axis=0)
    assert np.median(np.linalg.norm(positions[10:40] - centre, axis=1)) < 0.5 * np.median(np.linalg.norm(positions[others] - centre, axis=1))


@pytest.mark.parametrize("place", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_no_generator_is_touched(place):
    profiles = structured(60)
    before = profiles.copy()
    numpy_state, python_state = np.random.get_state(), python_random.getstate()  # noqa: NPY002
    first = place(profiles, seed=3)
    warm = place(profiles, seed=3, previous=first)
    assert place(profiles, seed=3).tobytes() == first.tobytes()
    assert place(profiles, seed=3, previous=first).tobytes() == warm.tobytes()
    np.testing.assert_array_equal(profiles, before)
    assert python_random.getstate() == python_state
    for one, other in zip(np.random.get_state(), numpy_state):  # noqa: NPY002
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("place", METHODS)
def test_clusters_stay_clusters(place):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 25)
    profiles = 6 * np.eye(4, 8)[label] + rng.normal(size=(100, 8))
    distances = cdist(*[place(profiles)] * 2)
    np.fill_diagonal(distances, np.inf)
    assert (label[distances.argmin(axis=1)] == label).mean() > 0.97


def disagreeing() -> np.ndarray:
    """Units (u, f) whose neighbours are others by each metric: a shape, of any length, on any level."""
    rng = np.random.default_rng(1)
    shape = structured(120, 10, seed=4)
    return np.exp(rng.normal(size=(120, 1))) * (shape + 3 * rng.normal(size=(120, 1)))


@pytest.mark.parametrize("place", METHODS)
def test_a_layout_follows_the_metric_asked_for_more_than_one_made_for_another(place):
    profiles = disagreeing()
    made = {metric: place(profiles, metric=metric) for metric in METRICS}
    for metric in METRICS:
        trusted = {other: trustworthiness(profiles, positions, metric=metric) for other, positions in made.items()}
        assert trusted[metric] == max(trusted.values()) > 0.84
        assert trusted[metric] > trustworthiness(profiles, random(profiles), metric=metric) + 0.3
        assert min(trusted.values()) < trusted[metric] - 0.1


@pytest.mark.parametrize("place", METHODS)
def test_lengths_do_not_matter_to_the_cosine_nor_levels_to_the_correlation(place):
    # Powers of two and whole numbers change no bit of what is compared.
    profiles = np.round(structured(50) * 64)
    rng = np.random.default_rng(0)
    lengths = 2.0 ** rng.integers(-3, 4, size=(50, 1))
    np.testing.assert_array_equal(place(lengths * profiles, metric="cosine"), place(profiles, metric="cosine"))
    assert not np.allclose(place(lengths * profiles), place(profiles), atol=0.05)
    if place is mds:
        levels = rng.integers(-5, 5, size=(50, 1))
        np.testing.assert_allclose(place(profiles + levels, metric="correlation"), place(profiles, metric="correlation"), atol=1e-6)


@pytest.mark.parametrize("place", METHODS)
def test_a_warm_start_stays_where_the_layout_was_however_that_was_turned(place):
    profiles = structured(120)
    later = 0.95 * profiles + 0.05 * structured(120, seed=1)
    for angle in (0.0, 2.0):
        before = turned(place(profiles), angle)
        assert motion(place(later, previous=before), before) < 0.35
    assert motion(place(later), before) > 2 * motion(place(later, previous=before), before)


@pytest.mark.parametrize("place", METHODS)
def test_a_warm_start_goes_with_the_profiles(place):
    profiles = structured(150)
    later = 0.5 * profiles + 0.5 * structured(150, seed=1)
    before = place(profiles)
    after = place(later, previous=before)
    assert trustworthiness(later, after) > trustworthiness(later, before) + 0.02
    assert trustworthiness(later, after) > trustworthiness(later, place(later)) - 0.03


@pytest.mark.parametrize("place", METHODS)
def test_units_on_one_point_before_part_again(place):
    profiles = structured(40)
    after = place(profiles, previous=np.full((40, 2), 0.5))
    assert trustworthiness(profiles, after) > 0.75


@pytest.mark.parametrize("place", METHODS)
def test_layouts_say_what_is_wrong(place):
    profiles = structured(10, 4)
    with pytest.raises(ValueError, match=r"unknown metric 'manhattan'; allowed are \['euclidean', 'cosine', 'correlation'\]"):
        place(profiles, metric="manhattan")
    with pytest.raises(ValueError, match=r"previous layout has shape \(9, 2\) .* expected \(10, 2\)"):
        place(profiles, previous=np.zeros((9, 2)))
    profiles[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 10 units, \[7\] first"):
        place(profiles)


@pytest.mark.parametrize(
    ("place", "option", "value", "message"),
    [
        (mds, "iterations", 0, r"mds got iterations 0; expected a finite number above 0"),
        (som, "iterations", -1, r"som got iterations -1"),
        (graph, "iterations", 0, r"graph got iterations 0"),
        (graph, "neighbours", 0, r"graph got neighbours 0"),
        (tsne, "perplexity", 0, r"tsne got perplexity 0"),
        (umap, "neighbours", 1, r"umap got 1 neighbours; expected at least 2"),
        (umap, "min_distance", 2, r"umap got min_distance 2; expected a number in \[0, 1\]"),
        (pacmap, "neighbours", 0, r"pacmap got 0 neighbours; expected at least 1"),
    ],
)
def test_options_say_what_is_wrong(place, option, value, message):
    with pytest.raises(ValueError, match=message):
        place(structured(10), **{option: value})


@pytest.mark.parametrize("place", [mds, som, graph])
def test_a_hundred_thousand_units_are_refused_with_the_arithmetic(place):
    message = rf"{place.__name__} compares .*: 100,000 x 100,000 x 8 bytes = 74.5 GiB.* at most 8,192 units. Use flas"
    with pytest.raises(ValueError, match=message):
        place(np.zeros((100_000, 2)))
    with pytest.raises(ValueError, match=r"8,193 x 8,193"):
        place(np.zeros((8193, 1)))
    assert place(np.zeros((8192, 1))).shape == (8192, 2)


@pytest.mark.parametrize(
    ("place", "option", "values"),
    [(tsne, "perplexity", (3, 30)), (umap, "neighbours", (4, 30)), (pacmap, "neighbours", (3, 20)), (graph, "neighbours", (3, 20))],
)
def test_more_neighbours_change_the_map(place, option, values):
    profiles = structured(100)
    one, other = (place(profiles, **{option: value}) for value in values)
    assert motion(one, other) > 0.02


def test_umap_keeps_units_the_further_apart_the_larger_the_least_distance():
    profiles = structured(100)
    crowding = []
    for least in (0.0, 0.9):
        distances = cdist(*[umap(profiles, min_distance=least)] * 2)
        np.fill_diagonal(distances, np.inf)
        crowding.append(np.median(distances.min(axis=1)))
    assert crowding[1] > 1.3 * crowding[0]


# ------------------------------------------------------------------------------------------------------------ mds


def test_mds_recovers_points_of_the_plane():
    points = np.random.default_rng(0).random((40, 2))
    lifted = points @ np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0][:2]
    np.testing.assert_allclose(procrustes(mds(lifted), points), points, atol=1e-4)
    warm = mds(lifted, previous=random(lifted), iterations=2000)
    np.testing.assert_allclose(procrustes(warm, points), points, atol=0.02)


def stress(positions: np.ndarray, profiles: np.ndarray) -> float:
    shown, wanted = pdist(positions), pdist(profiles)
    shown = shown * ((shown @ wanted) / (shown @ shown))
    return float(((shown - wanted) ** 2).sum())


@pytest.mark.parametrize("metric", METRICS)
def test_mds_has_less_stress_than_principal_components_and_no_more_than_other_starts_find(metric):
    from sklearn.manifold import smacof

    profiles = metric_space(disagreeing()[:50], metric)
    found = stress(mds(profiles), profiles)
    assert found < 0.95 * stress(pca(profiles), profiles)
    for seed in range(3):
        start = np.random.default_rng(seed).normal(size=(50, 2))
        other, _ = smacof(cdist(profiles, profiles), init=start, n_init=1, normalized_stress=False)
        assert found < 1.1 * stress(other, profiles)


# ---------------------------------------------------------------------------------------------------------- graph


def test_springs_tie_nearest_neighbours_and_join_clusters_where_they_are_nearest():
    line = np.array([[0.0], [1], [3], [20], [21.5], [24]])
    assert springs(line, 1).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]
    square = np.array([[0.0, 0], [1, 0.1], [0, 1.2], [1, 1.4]])
    assert springs(square, 1).tolist() == [[0, 1], [0, 2], [2, 3]]
    assert springs(square, 2).tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_a_hundred_dead_units_make_no_star():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    profiles = structured(140)
    profiles[:100] = 0
    ties = springs(base.told_apart(profiles, 0), 10)
    degree = np.bincount(ties.ravel(), minlength=140)
    assert degree.max() <= 30
    assert connected_components(coo_array((np.ones(len(ties)), ties.T), shape=(140, 140)))[0] == 1
    # Without the noise, all of them hold on to the same few.
    assert np.bincount(springs(profiles, 10).ravel()).max() > 60


def energy(points: np.ndarray, ties: np.ndarray) -> float:
    length = 1 / np.sqrt(len(points))
    springs_pull = sum(np.linalg.norm(points[i] - points[j]) ** 3 / (3 * length) for i, j in ties)
    return float(springs_pull - length**2 * np.log(pdist(points)).sum())


def test_the_size_at_rest_has_least_energy():
    points = np.random.default_rng(0).random((30, 2))
    ties = springs(points, 4)
    resting = at_rest(points, ties)
    for factor in (0.5, 0.98, 1.02, 2):
        assert energy(resting, ties) < energy(resting * factor, ties)


def test_a_graph_is_laid_out_at_less_energy_than_it_starts_from():
    profiles = structured(60)
    ties = springs(base.told_apart(profiles, 0), 10)
    found = {
        name: energy(at_rest(at, ties), ties) for name, at in {"graph": graph(profiles), "pca": pca(profiles), "random": random(profiles)}.items()
    }
    assert found["graph"] < found["pca"] < found["random"]


# ------------------------------------------------------------------------------------------------------------ som


def test_models_are_means_weighted_by_a_gaussian_of_the_distance():
    rng = np.random.default_rng(0)
    units, at, side, width = rng.normal(size=(12, 3)), rng.integers(0, 4, size=(12, 2)), 4, 0.8
    expected = np.empty((4, 4, 3))
    for row in range(4):
        for column in range(4):
            weights = np.exp(-((at - [row, column]) ** 2).sum(axis=1) / (2 * width**2))
            expected[row, column] = weights @ units / weights.sum()
    np.testing.assert_allclose(models(units, at, side, width), expected)
    best = [min(np.ndindex(4, 4), key=lambda cell: np.linalg.norm(expected[cell] - unit)) for unit in units]
    np.testing.assert_array_equal(nearest(units, expected), best)


def test_a_cell_far_from_all_units_has_a_model():
    assert np.isfinite(models(np.ones((2, 1)), np.zeros((2, 2), dtype=np.int64), 90, 0.5)).all()


def test_units_of_one_cell_share_no_point_and_stay_nearest_to_it():
    at = np.random.default_rng(0).integers(0, 4, size=(200, 2))
    places = untied(at)
    assert pdist(places).min() > 0.05
    np.testing.assert_array_equal(np.round(places), at)
    np.testing.assert_array_equal(untied(np.array([[0, 1], [2, 2]])), [[0, 1], [2, 2]])
    assert pdist(som(np.repeat(structured(20), 5, axis=0))).min() > 1e-3


def test_som_is_more_trustworthy_than_minisom():
    from minisom import MiniSom

    profiles = structured(200)
    other = MiniSom(15, 15, 12, sigma=1.0, learning_rate=0.5, random_seed=0)
    other.random_weights_init(profiles)
    other.train_random(profiles, 2000)
    cells = np.array([other.winner(row) for row in profiles])
    assert trustworthiness(profiles, som(profiles)) > trustworthiness(profiles, untied(cells)) + 0.05
    assert trustworthiness(profiles, som(profiles)) > trustworthiness(profiles, flas(profiles))


# -------------------------------------------------------------------------------------------------------- libraries


def loaded_after(statement: str) -> tuple[set[str], str]:
    program = f"{statement}\nimport sys; print(' '.join(name for name in sys.modules if '.' not in name))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split()), result.stderr


def test_layouts_import_their_libraries_when_they_are_used():
    loaded, _ = loaded_after("import netlapse.analysis.layout")
    assert not loaded & {"umap", "pacmap", "numba", "sklearn", "networkx", "tensorflow", "torch"}


def test_umap_and_pacmap_bring_no_framework_and_say_nothing():
    call = "import numpy as np; from netlapse.analysis.layout import pacmap, umap; p = np.random.default_rng(0).random((20, 3))"
    loaded, said = loaded_after(
        f"{call}; [place(p, previous=place(p)) for place in (umap, pacmap)]; import sys; assert 'tensorflow' not in sys.modules"
    )
    assert {"umap", "pacmap"} <= loaded
    assert not loaded & {"tensorflow", "keras", "torch"}
    assert said == ""


@pytest.mark.parametrize(("place", "package"), [(umap, "umap-learn"), (pacmap, "pacmap")])
def test_a_library_that_is_not_installed_is_named_with_what_to_install(place, package, monkeypatch):
    monkeypatch.setitem(sys.modules, place.__name__, None)
    with pytest.raises(ModuleNotFoundError, match=rf"layout {place.__name__} needs the library {package}.*pip install 'netlapse\[layouts\]'"):
        place(structured(10))
