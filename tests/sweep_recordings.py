"""Made-up sweeps of made-up runs, without training anything: two seeds of one network are one run with its units in another order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from page_recording import made_up_run

from netlapse.analysis.similarity import packed
from netlapse.recording import Recording
from netlapse.sweep import FINISHED, Child, Sweep, job_key, words
from netlapse.tracking.folder import Wanted, everything
from netlapse.types import Findings, Int64

INPUTS = 30


def recorded_run(
    seed: int = 0,
    *,
    layers: Mapping[str, int] | None = None,
    steps: int = 4,
    noise: float = 0.05,
    probe: str = "p" * 64,
    orders: Mapping[str, Int64] | None = None,
    similarity: bool = True,
) -> Recording:
    """A run whose units are those of seed 0 in the given orders, each with a little noise of its own, and with responses if `similarity`."""
    layers = dict(layers or {"conv1": 12, "fc1": 20})
    known = made_up_run(steps=steps, layers=layers, groups=4, inputs=4, side=8)
    rng = np.random.default_rng(seed + 100)
    findings = {name: dict(by_step) for name, by_step in known.findings.items()}
    for analysis in ("nap", "topomap"):
        findings[analysis] = {step: _ordered(found, orders or {}) for step, found in known.findings[analysis].items()}
    findings["nap"] = {
        step: replace(found, scalars={k: v * (1 + seed / 10) for k, v in found.scalars.items()}) for step, found in findings["nap"].items()
    }
    if similarity:
        findings["similarity"] = {step: _responses(layers, step, orders or {}, noise, rng) for step in range(steps)}
    return Recording({**known.manifest, "probe": {**known.manifest["probe"], "hash": probe}}, findings)  # type: ignore[dict-item]


def _ordered(found: Findings, orders: Mapping[str, Int64]) -> Findings:
    """With the units of each layer in another order; positions stay, so that without matching maps have nothing to do with each other."""
    arrays = dict(found.arrays)
    for layer, order in orders.items():
        for part in ("profile", "sparsity", "error"):
            if f"{part}/{layer}" in arrays:
                arrays[f"{part}/{layer}"] = np.asarray(arrays[f"{part}/{layer}"])[:, order]
    return replace(found, arrays=arrays)


def _responses(layers: Mapping[str, int], step: int, orders: Mapping[str, Int64], noise: float, rng: np.random.Generator) -> Findings:
    same = np.random.default_rng(step)
    arrays: dict[str, object] = {"layers": np.array(list(layers)), "inputs": np.arange(INPUTS), "labels": np.arange(INPUTS) % 4}
    for layer, units in layers.items():
        values = same.normal(size=(INPUTS, units))[:, orders.get(layer, np.arange(units))] + noise * rng.normal(size=(INPUTS, units))
        arrays[f"responses/{layer}"], arrays[f"responses_range/{layer}"] = packed(values.astype(np.float32))
    return Findings({name: np.asarray(values) for name, values in arrays.items()}, {f"similarity/first/{layer}": 1.0 - step / 10 for layer in layers})


def child(given: str, recording: Recording | None, *, state: str = FINISHED, why: str | None = None, started: float = 0.0) -> Child:
    """The run of a job that was given these words; without a recording it recorded nothing."""

    def loaded(wanted: Wanted = everything) -> Recording:
        if recording is None:
            raise FileNotFoundError("no recording")
        findings = {
            analysis: {
                step: replace(found, arrays={name: each for name, each in found.arrays.items() if wanted(analysis, name)})
                for step, found in by_step.items()
            }
            for analysis, by_step in recording.findings.items()
        }
        return replace(recording, findings=findings)

    overrides = words(given.split())
    metrics = {} if recording is None else {name: float(series.values[-1]) for name, series in recording.scalars.items()}
    return Child(f"run of {given}", job_key(overrides), overrides, state, started, 1.0, metrics, why, loaded)


def sweep_of(*children: Child) -> Sweep:
    return Sweep("the parent", tuple(one.overrides for one in children), children)
