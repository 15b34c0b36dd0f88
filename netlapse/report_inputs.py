"""The probe's inputs on the time-lapse page: those that units answer most, what they look like, and the maps of inputs.

Only inputs that the page has a use for are in it: the top inputs of some unit at some step, those of the sample maps, and those
that a list of predictions names.
They are numbered among themselves, in the order of the probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from netlapse.packing import Json, grey_levels, indices, packed, places, rounded, rows_at
from netlapse.recording import Recording
from netlapse.report_predictions import listed
from netlapse.types import Array, Findings, Float64, Int64, ProbeSet, UInt8

PICTURE_SIDE = 48  # pixels of a picture of an input; larger ones are averaged down
PICTURE_BYTES = 1_200_000  # of all pictures together, so that a default run stays under 3 MB
SAMPLES = "samples"
RESPONSES = "receptive_field"  # the analysis that finds what units respond to


class Inputs:
    """The inputs that the page names, and how they are numbered on it.

    top       layer -> step -> (u, m) the probe's inputs of the highest mean activation, -1 where there are fewer
    labels    (n,) of the whole probe, as far as an analysis noted them; None where none did
    samples   step -> what the analysis `samples` found, of the same inputs at each
    """

    def __init__(self, recording: Recording, nap: Mapping[int, Findings], layers: Iterable[str]) -> None:
        self.top = {
            layer: {step: np.asarray(f.arrays[f"top/{layer}"], np.int64) for step, f in nap.items() if f"top/{layer}" in f.arrays} for layer in layers
        }
        self.samples = _of_the_same_inputs(recording.findings.get(SAMPLES, {}))
        responses = [findings.arrays for _, findings in sorted(recording.findings.get(RESPONSES, {}).items())]
        self.labels = next((np.asarray(arrays["labels"], np.int64) for arrays in reversed(responses) if "labels" in arrays), None)
        shown = [tops.ravel() for by_step in self.top.values() for tops in by_step.values()]
        shown += [np.asarray(arrays[f"top/{layer}"], np.int64).ravel() for arrays in responses for layer in self.top if f"top/{layer}" in arrays]
        shown += [np.asarray(f.arrays["inputs"], np.int64) for f in self.samples.values()]
        shown += listed(recording)
        every = np.concatenate(shown) if shown else np.zeros(0, np.int64)
        self.at, counts = np.unique(every[every >= 0], return_counts=True)
        self.often: Int64 = counts

    def numbered(self, inputs: Array) -> Array:
        """The page's numbers of inputs of the probe; one past the last for -1, none."""
        of: Int64 = np.asarray(inputs, np.int64)
        return indices(np.where(of < 0, len(self.at), np.searchsorted(self.at, of)))

    def top_of(self, layer: str, steps: Sequence[int], units: int) -> Json:
        """(s, u, m) the top inputs of each unit at the given steps by their numbers; None where that was not recorded."""
        found = [self.top[layer].get(step) for step in steps]
        fitting = [tops for tops in found if tops is not None and tops.ndim == 2 and len(tops) == units]
        if not fitting:
            return None
        none = np.full((units, fitting[-1].shape[1]), -1)
        return packed(self.numbered(np.stack([none if tops is None or tops.shape != none.shape else tops for tops in found])))

    def described(self, recording: Recording, groups: Sequence[str], probe: ProbeSet | None) -> Json:
        """What tells the inputs apart: their places in the probe, ids, labels, groups where these are the labels, pictures."""
        if not len(self.at):
            return None
        shown = probe.take(self.at) if probe is not None else None
        asked = recording.manifest.get("probe")
        by_label = isinstance(asked, Mapping) and asked.get("grouping") == "by_label"
        return {
            "at": self.at.tolist(),
            "ids": np.asarray(shown.ids).tolist() if shown is not None else None,
            "labels": shown.labels.tolist() if shown is not None else self.labels[self.at].tolist() if self.labels is not None else None,
            "groups": [_place(groups, shown.class_names[k]) for k in shown.labels.tolist()] if by_label and shown is not None else None,
            "shape": list(shown.inputs.shape[1:]) if shown is not None else None,
            "pictures": None if probe is None else self._pictures(probe),
        }

    def _pictures(self, probe: ProbeSet) -> Json:
        """The inputs as pictures, the most frequent first where not all have room; None where they are none."""
        inputs = np.asarray(probe.inputs)
        if inputs.ndim != 4:
            return None
        colours = inputs[..., : 3 if inputs.shape[3] >= 3 else 1]
        low, high = float(colours.min()), float(colours.max())

        def small(of: Int64) -> UInt8:
            return grey_levels(np.asarray(colours[of], np.float64), PICTURE_SIDE, low, high)

        room = PICTURE_BYTES // small(self.at[:1]).size
        kept = np.sort(np.argsort(-self.often, kind="stable")[:room])
        row = np.full(len(self.at), -1)
        row[kept] = np.arange(len(kept))
        return {"row": row.tolist(), "data": packed(small(self.at[kept]))}

    def maps(self, recording: Recording, layers: Iterable[str]) -> Json:
        """The sample maps: where each input lies in each layer, its group, label and what the network says of it; None without any."""
        if not self.samples:
            return None
        steps = list(self.samples)
        last = self.samples[steps[-1]].arrays
        found = {layer: self._points(recording, layer, len(np.asarray(last["inputs"]))) for layer in layers}
        names = list(dict.fromkeys(str(name) for f in self.samples.values() for name in np.asarray(f.arrays["names"]).tolist()))
        return {
            "at": rows_at(recording.steps, steps),
            "inputs": self.numbered(np.asarray(last["inputs"])).tolist(),
            "names": names,
            "groups": [_named(f, names) for f in self.samples.values()],
            "labels": [_none_below_zero(v) for v in np.asarray(last["labels"]).tolist()] if "labels" in last else None,
            "predictions": [
                [_none_below_zero(v) for v in np.asarray(f.arrays["predictions"]).tolist()] if "predictions" in f.arrays else None
                for f in self.samples.values()
            ],
            "layers": {layer: points for layer, points in found.items() if points is not None},
        }

    def _points(self, recording: Recording, layer: str, inputs: int) -> dict[str, Json] | None:
        """Where the inputs lie (s, m, 2) at the steps at which the layer's map is whole."""
        by_step: dict[int, Float64] = {}
        for step, findings in self.samples.items():
            points = np.asarray(findings.arrays.get(f"{SAMPLES}/{layer}", np.zeros(0)), np.float64)
            if points.shape == (inputs, 2) and np.isfinite(points).all():
                by_step[step] = points
        if not by_step:
            return None
        return {"at": rows_at(recording.steps, list(by_step)), "points": packed(places(np.stack(list(by_step.values()))))}


def _of_the_same_inputs(by_step: Mapping[int, Findings]) -> dict[int, Findings]:
    """The sample maps that are of the inputs that the last one is of, ascending by step."""
    whole = {step: f for step, f in sorted(by_step.items()) if {"inputs", "groups", "names"} <= f.arrays.keys()}
    last = whole[max(whole)].arrays["inputs"] if whole else None
    return {step: f for step, f in whole.items() if np.array_equal(f.arrays["inputs"], np.asarray(last))}


def _named(findings: Findings, names: Sequence[str]) -> list[int]:
    """The group of each input, by its place among all the names there are."""
    place = [names.index(str(name)) for name in np.asarray(findings.arrays["names"]).tolist()]
    return [place[int(group)] for group in np.asarray(findings.arrays["groups"]).tolist()]


def _place(names: Sequence[str], name: str) -> int | None:
    return list(names).index(name) if name in names else None


def _none_below_zero(value: float) -> float | None:
    return None if value < 0 else rounded(value)
