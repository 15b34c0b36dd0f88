"""Layouts that move units until distances, or neighbours, on the map are those of the profiles: `mds`, `tsne`, `umap`, `pacmap`.

The optimisation is the libraries'. What they share is here: where it starts from, a warm start that is shorter and gentler
than a start from nothing, the same bytes for the same arguments on any number of cores, and profiles too few or too much
alike for the method, which `pca` lays out: of up to three units it shows all distances exactly.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis.layout.base import alike, checked, filled, metric_space, positive, principal_components, squared, told_apart
from netlapse.analysis.layout.projection import pca
from netlapse.types import Float64


def mds(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean", iterations: int = 300) -> Float64:
    """Positions (u, 2) whose distances are those of the profiles as nearly as possible, scaled by one factor to fill [0, 1].

    Metric multidimensional scaling: the raw stress, the sum of squared differences between the distances on the map and those
    of the profiles, is majorised in at most `iterations` steps. They start from the first two principal components, with
    `previous` from there, at the size of least stress; stress does not see rotations, so the map keeps the orientation it
    starts from. Nothing is random but what `principal_components` says of `seed`. Up to three units, and profiles that are
    all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, for iterations below 1, and for more than
    8,192 units: it holds several matrices of all units by all units.
    Source: de Leeuw, 1977, "Applications of convex analysis to multidimensional scaling" (SMACOF), in scikit-learn.
    """
    rows, previous = _checked(profiles, metric, previous)
    positive(iterations, "iterations", "mds")
    squared(len(rows), "mds")
    if _too_simple(rows):
        return pca(rows, seed=seed, previous=previous)
    from scipy.spatial.distance import pdist, squareform
    from sklearn.manifold import smacof

    wanted = pdist(rows)
    start = _start(rows, previous, seed)
    shown = pdist(start)
    start = start * ((wanted @ shown) / (shown @ shown))
    found, _ = smacof(squareform(wanted), n_components=2, init=start, n_init=1, max_iter=iterations, eps=1e-6, normalized_stress=False)
    return filled(np.asarray(found, dtype=np.float64))


def tsne(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean", perplexity: float = 30.0) -> Float64:
    """Positions (u, 2) by t-distributed stochastic neighbour embedding: near neighbours stay together, far distances mean little.

    perplexity  about how many neighbours a unit attends to; lowered to (u - 1) / 3, as each has three times as many candidates

    Without `previous` it starts from the first two principal components, with early exaggeration. With it, it starts from
    there at the size such maps grow to, and goes 250 gentle steps without exaggeration, which would gather all units anew.
    Scaled by one factor to fill [0, 1]. Up to three units, and profiles that are all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, and for a perplexity that is not above 0.
    Source: van der Maaten, 2014, "Accelerating t-SNE using tree-based algorithms", in scikit-learn.
    """
    rows, previous = _checked(profiles, metric, previous)
    positive(perplexity, "perplexity", "tsne")
    if _too_simple(rows):
        return pca(rows, seed=seed, previous=previous)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = _start(rows, previous, seed)
    if previous is None:
        steps: dict[str, float | int] = {}
        start = start * 1e-4
    else:
        steps = {"early_exaggeration": 1.0, "max_iter": 250, "learning_rate": len(rows) / 12}
        start = start * TSNE_RADIUS * np.sqrt(len(rows))
    method = TSNE(perplexity=min(perplexity, (len(rows) - 1) / 3), init=start.astype(np.float32), random_state=seed, **steps)
    # Sums over several threads depend on which comes first, and the same arguments must give the same bytes.
    with threadpool_limits(1):
        return filled(np.asarray(method.fit_transform(rows.astype(np.float32)), dtype=np.float64))


def umap(
    profiles: Float64,
    *,
    seed: int = 0,
    previous: Float64 | None = None,
    metric: str = "euclidean",
    neighbours: int = 15,
    min_distance: float = 0.1,
) -> Float64:
    """Positions (u, 2) by uniform manifold approximation and projection: near neighbours stay together, clusters stay apart.

    neighbours    units each unit is compared with, itself included; lowered to u - 1
    min_distance  how near to each other units may come, where clusters are some units of length wide

    Without `previous` it starts from the graph's spectrum (principal components below 16 units), with it from there, with a
    tenth of the steps and of the learning rate. Scaled by one factor to fill [0, 1]. Up to three units, and profiles
    that are all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, for fewer than 2 neighbours and for a
    min_distance not in [0, 1]; ModuleNotFoundError where umap-learn is not installed.
    Source: McInnes, Healy and Melville, 2018, "UMAP: uniform manifold approximation and projection", in umap-learn.
    """
    rows, previous = _checked(profiles, metric, previous)
    if neighbours < 2:
        raise ValueError(f"umap got {neighbours} neighbours; expected at least 2, a unit itself is one of them")
    if not 0 <= min_distance <= 1:
        raise ValueError(f"umap got min_distance {min_distance}; expected a number in [0, 1]")
    if _too_simple(rows):
        return pca(rows, seed=seed, previous=previous)
    library = _optional("umap", "umap-learn")
    start: Float64 | str = "spectral"
    gentle: dict[str, float | int] = {}
    if previous is not None or len(rows) < 16:
        start = (UMAP_RADIUS * _start(rows, previous, seed)).astype(np.float32)
    if previous is not None:
        gentle = {"n_epochs": 50, "learning_rate": 0.1}
    with _quiet("umap"):
        method = library.UMAP(n_neighbors=min(neighbours, len(rows) - 1), min_dist=min_distance, init=start, random_state=seed, n_jobs=1, **gentle)
        found = method.fit_transform(told_apart(rows, seed).astype(np.float32))
    return filled(np.asarray(found, dtype=np.float64))


def pacmap(profiles: Float64, *, seed: int = 0, previous: Float64 | None = None, metric: str = "euclidean", neighbours: int = 10) -> Float64:
    """Positions (u, 2) by pairwise controlled manifold approximation: neighbours together, without losing where clusters are.

    neighbours  units each unit is drawn to; with few units lowered by the library until neighbours, mid-near and further
                pairs are together fewer than the units

    Without `previous` it starts from the first two principal components and goes through the method's three phases. With it,
    it starts from there, at the size such maps grow to, and goes a hundred gentler steps of the last phase alone, which sorts
    neighbours and leaves the rest where it is. Compared are the first fifty principal components. Scaled by one factor to
    fill [0, 1]. Up to three units, and profiles that are all the same, are laid out by `pca`.

    Raises ValueError as `metric_space` does, for a previous layout of another shape, and for fewer than 1 neighbour;
    ModuleNotFoundError where pacmap is not installed.
    Source: Wang, Huang, Rudin and Shaposhnik, 2021, "Understanding how dimension reduction tools work", in pacmap.
    """
    rows, previous = _checked(profiles, metric, previous)
    if neighbours < 1:
        raise ValueError(f"pacmap got {neighbours} neighbours; expected at least 1")
    if _too_simple(rows):
        return pca(rows, seed=seed, previous=previous)
    library = _optional("pacmap", "pacmap")
    components = principal_components(told_apart(rows, seed), 50, seed)
    if components.shape[1] == 1:
        components = np.column_stack([components, np.zeros(len(rows))])
    phases = (100, 100, 250) if previous is None else (0, 0, 0)
    start = _start(rows, previous, seed)
    with _quiet("pacmap"):
        method = library.PaCMAP(n_neighbors=neighbours, num_iters=phases, random_state=seed)
        found = method.fit_transform(components, init=start)
        if previous is not None:
            found = _last_phase(library.pacmap, (PACMAP_RADIUS * start).astype(np.float32), method)
    return filled(np.asarray(found, dtype=np.float64))


def _last_phase(library: ModuleType, found: NDArray[np.float32], method: Any) -> NDArray[np.float32]:
    """A hundred steps of PaCMAP's last phase from where the units are; asked itself, it would first shrink that to a ten-thousandth."""
    first, second = np.zeros_like(found), np.zeros_like(found)
    for step in range(100):
        pull = library.pacmap_grad(found, method.pair_neighbors, method.pair_MN, method.pair_FP, 1.0, 0.0, 1.0)
        library.update_embedding_adam(found, pull, first, second, 0.9, 0.999, 0.3, step)
    return found


# Root mean square radii to which maps of 40 to 2,000 units were seen to grow; a warm start of another size would be spent on growing.
TSNE_RADIUS = 0.75  # times the root of the units
UMAP_RADIUS = 3.0
PACMAP_RADIUS = 7.0


def _checked(profiles: Float64, metric: str, previous: Float64 | None) -> tuple[Float64, Float64 | None]:
    rows = metric_space(profiles, metric)
    return rows, checked(previous, len(rows))


def _too_simple(rows: Float64) -> bool:
    return len(rows) <= 3 or alike(rows)


def _start(rows: Float64, previous: Float64 | None, seed: int) -> Float64:
    """Where an optimisation starts (u, 2): centred, of root mean square radius 1, no two units on one point, between which
    no force would have a direction."""
    start = pca(rows, seed=seed) if previous is None else previous
    start = start - start.mean(axis=0)
    radius = np.sqrt((start**2).sum(axis=1).mean())
    apart: Float64 = start / (radius or 1.0) + 1e-4 * np.random.default_rng(seed).normal(size=start.shape)
    return apart


def _optional(name: str, package: str) -> ModuleType:
    """A library that takes long to import and is not everybody's; imported where a layout is made, not before."""
    # umap imports tensorflow if it can, for a class not used here: half a minute, and a second framework in a training process.
    absent = "tensorflow" not in sys.modules
    if absent:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"the layout {name} needs the library {package}, which is not installed: pip install 'netlapse[layouts]', or use flas or tsne", name=name
        ) from None
    finally:
        if absent:
            del sys.modules["tensorflow"]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without warnings, without what a library logs (that its seed is set, each time), and on one thread.

    More threads gain nothing on some thousand units, and lose much where a training keeps the cores busy.
    """
    numba = importlib.import_module("numba")
    logger = logging.getLogger(name)
    level, threads = logger.level, numba.get_num_threads()
    logger.setLevel(logging.ERROR)
    numba.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        numba.set_num_threads(threads)
