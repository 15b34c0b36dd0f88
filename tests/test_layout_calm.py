"""Laws of what keeps a layout calm over checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

import netlapse.analysis.layout as layouts
from netlapse.analysis.layout import base, fixed, flas, mds, method, over_time, pca, procrustes, random, spread, steady, tsne
from netlapse.analysis.quality import motion, trustworthiness

CHOICES = sorted(path.stem for path in (Path(layouts.__file__).parents[2] / "conf" / "layout").glob("*.yaml"))


def structured(units: int, features: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(units, 3)) @ rng.normal(size=(3, features)), 0) + 0.02 * rng.normal(size=(units, features))


def turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def scattered(profiles, *, seed=0, previous=None):
    """A user's layout, as restless as can be: it depends on every bit of the profiles."""
    return np.random.default_rng(abs(hash(profiles.tobytes()))).random((len(profiles), 2))


def columns(profiles, *, seed=0, previous=None):
    """A user's layout: the first two features, wherever the units were."""
    return base.filled(profiles[:, :2])


@pytest.mark.parametrize("layout", [flas, pca, mds, scattered])
def test_without_a_previous_layout_or_a_wish_it_is_the_layout_itself(layout):
    profiles = structured(40)
    np.testing.assert_array_equal(over_time(profiles, layout=layout, seed=2), layout(profiles, seed=2))
    calm = over_time(profiles, layout=layout, seed=2, procrustes=True, movement_penalty=None if layout is flas else 0.5)
    np.testing.assert_array_equal(calm, layout(profiles, seed=2))
    first = random(profiles)
    np.testing.assert_array_equal(over_time(profiles, layout=layout, seed=2, previous=first), layout(profiles, seed=2, previous=first))


def test_without_warm_the_layout_knows_nothing_of_the_one_before():
    profiles, first = structured(60), random(structured(60))
    np.testing.assert_array_equal(over_time(profiles, layout=mds, previous=first, warm=False), mds(profiles))


def test_options_reach_the_layout():
    profiles = structured(40)
    np.testing.assert_array_equal(over_time(profiles, layout=pca, metric="cosine"), pca(profiles, metric="cosine"))
    np.testing.assert_array_equal(over_time(profiles, layout=tsne, perplexity=4.0), tsne(profiles, perplexity=4.0))


@pytest.mark.parametrize("flip", [1, -1])
def test_procrustes_undoes_a_turn_and_keeps_the_shape(flip):
    places = pca(structured(50))
    previous = base.filled(((places - 0.5) * [1, flip]) @ turn(1.0))
    after = over_time(places, layout=columns, previous=previous, procrustes=True)
    np.testing.assert_allclose(after, previous, atol=1e-9)
    other = over_time(structured(50, seed=1), layout=columns, previous=previous, procrustes=True)
    np.testing.assert_allclose(procrustes(other, columns(structured(50, seed=1))), columns(structured(50, seed=1)), atol=1e-9)
    assert np.ptp(other, axis=0).max() == pytest.approx(1)


def test_procrustes_finds_the_turn_of_least_motion():
    rng = np.random.default_rng(0)
    places, previous = rng.random((30, 2)), base.filled(rng.random((30, 2)))
    after = over_time(places, layout=columns, previous=previous, procrustes=True)
    centred, goal = after - after.mean(axis=0), previous - previous.mean(axis=0)
    best = ((centred - goal) ** 2).sum()
    for angle in np.linspace(0, 2 * np.pi, 200):
        for flip in (1, -1):
            assert (((centred * [1, flip]) @ turn(angle) - goal) ** 2).sum() >= best - 1e-9


@pytest.mark.parametrize("penalty", [0.1, 1.0, 9.0])
def test_the_movement_penalty_is_the_minimiser_it_is_said_to_be(penalty):
    places, previous = structured(20, 2), base.filled(structured(20, 2, seed=1))
    new = over_time(places, layout=columns, previous=previous, procrustes=True)
    found = over_time(places, layout=columns, previous=previous, movement_penalty=penalty)
    price = lambda p: ((p - new) ** 2).sum() + penalty * ((p - previous) ** 2).sum()  # noqa: E731
    for nudge in np.random.default_rng(0).normal(size=(200, 20, 2)):
        assert price(found) < price(found + 1e-3 * nudge)
    np.testing.assert_allclose(over_time(places, layout=columns, previous=previous, movement_penalty=1e12), previous, atol=1e-9)
    np.testing.assert_array_equal(over_time(places, layout=columns, previous=previous, movement_penalty=0), columns(places))


def test_a_layout_does_not_shrink_however_long_it_is_penalised():
    previous = None
    for step in range(60):
        previous = over_time(structured(40, 2, seed=step % 7), layout=columns, previous=previous, movement_penalty=0.5)
    assert np.ptp(previous, axis=0).max() > 0.5


def test_even_a_restless_layout_comes_to_rest():
    moved = []
    for options in ({}, {"procrustes": True}, {"movement_penalty": 1.0}, {"movement_penalty": 5.0}):
        previous, motions = None, []
        for step in range(5):
            after = over_time(structured(50, seed=step), layout=scattered, previous=previous, **options)
            motions.append(np.nan if previous is None else motion(after, previous))
            previous = after
        moved.append(np.nanmean(motions))
    assert moved[0] > moved[1] > moved[2] > moved[3]
    assert moved[3] < 0.4 * moved[0]


def test_the_penalty_of_flas_is_its_own():
    profiles, first = structured(80), flas(structured(80, seed=1))
    cells = set(map(tuple, np.round(first, 9)))
    for bound in (flas, partial(flas, movement_penalty=3.0)):
        after = over_time(profiles, layout=bound, previous=first, movement_penalty=0.7)
        np.testing.assert_array_equal(after, flas(profiles, previous=first, movement_penalty=0.7))
        assert set(map(tuple, np.round(after, 9))) == cells
    np.testing.assert_array_equal(over_time(profiles, layout=flas, previous=first), flas(profiles, previous=first))
    np.testing.assert_array_equal(
        over_time(profiles, layout=partial(flas, movement_penalty=3.0), previous=first), flas(profiles, previous=first, movement_penalty=3.0)
    )


def test_spread_comes_last_and_once():
    profiles = structured(60)
    first = over_time(profiles, layout=pca, spread=True, seed=4)
    np.testing.assert_array_equal(first, spread(pca(profiles), seed=4))
    later = over_time(profiles, layout=pca, spread=True, seed=4, previous=first, movement_penalty=0.5)
    np.testing.assert_array_equal(later, spread(over_time(profiles, layout=pca, previous=first, movement_penalty=0.5), seed=4))
    still = over_time(structured(60, seed=1), layout=fixed, spread=True, previous=first)
    np.testing.assert_array_equal(still, first)


def test_a_penalty_and_a_previous_layout_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"movement_penalty is -0.1; expected a finite number of at least 0"):
        over_time(structured(5), layout=pca, movement_penalty=-0.1)
    with pytest.raises(ValueError, match=r"movement_penalty is nan"):
        over_time(structured(5), layout=flas, movement_penalty=float("nan"))
    with pytest.raises(ValueError, match=r"previous layout has shape \(4, 2\)"):
        over_time(structured(5), layout=columns, previous=np.zeros((4, 2)), warm=False)
    with pytest.raises(TypeError, match="perplexity"):
        over_time(structured(5), layout=pca, perplexity=3)


# ---------------------------------------------------------------------------------------------------------- fixed


def test_fixed_positions_stay_whatever_the_profiles_become():
    given, before = random(structured(30), seed=1), random(structured(30), seed=2)
    np.testing.assert_array_equal(fixed(structured(30), positions=given, previous=before), given)
    np.testing.assert_array_equal(fixed(structured(30, seed=3), previous=before), before)
    first = fixed(structured(30), seed=5, metric="cosine", layout=tsne)
    np.testing.assert_array_equal(first, tsne(structured(30), seed=5, metric="cosine"))
    np.testing.assert_array_equal(fixed(structured(30)), flas(structured(30)))


def test_fixed_hands_out_no_array_that_is_somebody_elses():
    given = random(structured(10))
    kept = given.copy()
    fixed(structured(10), positions=given)[:] = 0
    fixed(structured(10), previous=given)[:] = 0
    np.testing.assert_array_equal(given, kept)


def test_fixed_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"positions: this layout has shape \(4, 2\) .* expected \(5, 2\)"):
        fixed(structured(5), positions=np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"positions: this layout reaches from 0 to 3; expected positions in \[0, 1\]"):
        fixed(structured(5), positions=np.array([[0, 0], [3, 0], [0, 0], [0, 0], [0, 0.0]]))
    with pytest.raises(ValueError, match=r"unknown metric"):
        fixed(structured(5), metric="manhattan")


# ---------------------------------------------------------------------------------------------------------- names


def test_a_layout_is_named_by_what_makes_it():
    assert method(tsne) is tsne
    assert method(partial(tsne, perplexity=3)) is tsne
    assert method(partial(over_time, layout=tsne, spread=True)) is tsne
    assert method(partial(partial(over_time, warm=False), layout=partial(flas, movement_penalty=1))) is flas
    assert method(partial(over_time, layout=partial(over_time, layout=columns))) is columns
    assert method(partial(fixed, layout=pca)) is fixed


def composed(*overrides: str):
    GlobalHydra.instance().clear()
    with initialize_config_module("netlapse.conf", version_base="1.3"):
        return compose("train", overrides=list(overrides)).layout


def test_every_layout_has_a_config_and_every_config_every_option_at_its_default():
    import inspect

    assert set(CHOICES) == {"random", "pca", "mds", "som", "graph", "swarm", "tsne", "umap", "pacmap", "flas", "fixed"}
    general = {name: p.default for name, p in inspect.signature(over_time).parameters.items() if p.default is not p.empty}
    for choice in CHOICES:
        cfg = composed(f"layout={choice}")
        place = instantiate(cfg)
        assert method(place) is getattr(layouts, choice)
        own = {name: p.default for name, p in inspect.signature(method(place)).parameters.items() if p.default is not p.empty}
        expected = {**general, "movement_penalty": 0.0, **own}
        for name in set(expected) - {"seed", "previous", "layout", "positions"} - ({"metric"} if choice == "random" else set()):
            assert name in cfg, (choice, name)
            assert cfg[name] == expected[name], (choice, name)


@pytest.mark.parametrize("choice", ["pca", "mds", "tsne", "flas"])
def test_a_config_is_overridden_from_the_command_line(choice):
    place = instantiate(composed(f"layout={choice}", "layout.metric=cosine", "layout.movement_penalty=0.3", "layout.procrustes=true"))
    profiles = structured(30)
    before = place(profiles, seed=1, previous=None)
    np.testing.assert_array_equal(before, getattr(layouts, choice)(profiles, seed=1, metric="cosine"))
    expected = over_time(profiles, layout=getattr(layouts, choice), seed=1, previous=before, metric="cosine", movement_penalty=0.3, procrustes=True)
    np.testing.assert_array_equal(place(profiles, seed=1, previous=before), expected)


def test_the_default_config_is_plain_flas():
    place, profiles = instantiate(composed()), structured(70)
    first = flas(profiles, seed=3)
    np.testing.assert_array_equal(place(profiles, seed=3, previous=None), first)
    np.testing.assert_array_equal(place(structured(70, seed=1), seed=3, previous=first), flas(structured(70, seed=1), seed=3, previous=first))


def test_comments_aside_the_configs_have_one_shape():
    folder = Path(layouts.__file__).parents[2] / "conf" / "layout"
    for choice in CHOICES:
        written = yaml.safe_load((folder / f"{choice}.yaml").read_text())
        assert list(written)[:2] == ["_target_", "layout"]
        assert list(written)[-4:] == ["warm", "procrustes", "movement_penalty", "spread"]


def test_a_calm_layout_still_shows_the_profiles():
    previous = None
    for step in range(6):
        mix = 0.15 * step
        profiles = (1 - mix) * structured(80) + mix * structured(80, seed=1)
        previous = over_time(profiles, layout=tsne, previous=previous, movement_penalty=0.3)
    assert trustworthiness(profiles, previous) > 0.85


def test_a_layout_of_a_yaml_file_is_the_function_itself_where_nothing_is_added() -> None:
    """So that a run of a script and one of the command line are the same in the record."""
    plain = steady(flas, metric="euclidean", movement_penalty=0.2)
    assert (plain.func, plain.keywords) == (flas, {"metric": "euclidean", "movement_penalty": 0.2})  # type: ignore[attr-defined]
    assert steady(tsne, movement_penalty=0.0, perplexity=5.0).func is tsne  # type: ignore[attr-defined]
    for options in ({"warm": False}, {"procrustes": True}, {"spread": True}, {"movement_penalty": 0.3}):
        added = steady(pca, metric="cosine", **options)  # type: ignore[arg-type]
        assert added.func is over_time  # type: ignore[attr-defined]
        assert method(added) is pca
        first, profiles = pca(structured(30)), structured(30, seed=1)
        expected = over_time(profiles, layout=pca, metric="cosine", previous=first, **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(added(profiles, previous=first), expected)
