"""What a layout costs and how good it is: flas beside its floor (pca) and its peer (t-SNE), in CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.layout`. The data are one synthetic generator's: rectified mixtures of five hidden
causes with noise, which no two-dimensional layout can show completely.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.layout import flas, pca, random
from netlapse.analysis.quality import motion, trustworthiness
from netlapse.types import Float64


def profiles(units: int, features: int, seed: int = 0) -> Float64:
    """Profiles (u, f) of units that respond to five hidden causes, centred and of unit length."""
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.normal(size=(units, 5)) @ rng.normal(size=(5, features)), 0) + 0.05 * rng.normal(size=(units, features))
    rows -= rows.mean(axis=1, keepdims=True)
    unit_rows: Float64 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows


def main() -> list[Row]:
    rows: list[Row] = []
    for units, seconds, trusted in ((512, 0.1, 0.955), (2048, 0.5, 0.979), (8192, 2.0, 0.985)):
        for features in (10, 100):
            x = profiles(units, features)
            times = interleaved({"flas": lambda x=x: flas(x), "pca": lambda x=x: pca(x)}, 3 if units > 2048 else 7)  # type: ignore[misc]
            rows.append(Row(f"flas, {units} units, {features} features, CPU s", times["flas"], times["pca"], "pca", seconds))
        sorted_by_flas = trustworthiness(x, flas(x))
        rows.append(Row(f"flas, {units} units, trustworthiness", sorted_by_flas, trustworthiness(x, random(x)), "random", trusted, at_least=True))
    x = profiles(512, 100)
    drifted = 0.8 * x + 0.2 * profiles(512, 100, seed=1)
    before = flas(x)
    times = interleaved({"warm": lambda: flas(drifted, previous=before), "cold": lambda: flas(drifted)}, 11)
    rows.append(Row("flas from a previous layout, 512, CPU s", times["warm"], times["cold"], "flas from nothing", 0.05))
    warm = flas(drifted, previous=before)
    rows.append(Row("its motion", motion(warm, before), motion(flas(drifted), before), "independent layouts", 0.2, judged="ratio"))
    rows.append(
        Row("its trustworthiness", trustworthiness(drifted, warm), trustworthiness(drifted, flas(drifted)), "flas from nothing", 0.98, "ratio", True)
    )
    rows.append(_beside_tsne(x))
    print(table(rows))
    return rows


def _beside_tsne(x: Float64) -> Row:
    from sklearn.manifold import TSNE

    times = interleaved({"flas": lambda: flas(x), "t-SNE": lambda: TSNE(init="pca", random_state=0).fit_transform(x)}, 2)
    return Row("flas, 512 units, CPU s", times["flas"], times["t-SNE"], "scikit-learn t-SNE", 0.1, judged="ratio")


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
