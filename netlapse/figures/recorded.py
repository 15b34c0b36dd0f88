"""What a figure needs of a recording: the contrasts of a layer's groups at a step, and where its units lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis import contrasts as profiles
from netlapse.analysis.topomap import ALL_STEPS, UNIT
from netlapse.recording import Recording
from netlapse.types import Array, Float64, Int64

SCALE = f"contrast to the mean over groups, in {UNIT}"
"""What a colour bar is of."""
TOPOMAP = "topomap"


@dataclass(frozen=True, eq=False)
class LayerContrasts:
    """The contrasts of one layer's groups at one step, in the words and the scale of a figure.

    names   the g groups            counts  (g,) inputs in each
    values  (g, u) in standard deviations of the layer's responses, NaN for groups without inputs
    silent  (u,) the units that did one and the same for all inputs: they have no part in a map
    unit    what a step counts: "epoch" or "step"
    """

    layer: str
    step: int
    unit: str
    names: tuple[str, ...]
    counts: Int64
    values: Float64
    silent: NDArray[np.bool_]
    missing: str
    """Why there is nothing to draw of this layer at this step; empty where there is something."""

    @property
    def title(self) -> str:
        units = self.values.shape[1]
        return f"{self.layer} \u00b7 {units} unit{'s' * (units != 1)} \u00b7 {self.unit} {self.step}"

    def of(self, groups: Sequence[str] | None) -> LayerContrasts:
        """Of these groups alone, in this order; None: all. Raises ValueError for a group that is not there, or none."""
        if groups is None:
            return self
        unknown = [group for group in groups if group not in self.names]
        if unknown or not len(groups) or isinstance(groups, str):
            raise ValueError(
                f"groups are {groups!r}; expected a list of one or more of {list(self.names)}, "
                f"the groups of this recording at {self.unit} {self.step}"
            )
        return self.take(np.array([self.names.index(group) for group in groups]))

    def take(self, places: Int64) -> LayerContrasts:
        return replace(self, names=tuple(self.names[i] for i in places), counts=self.counts[places], values=self.values[places])

    def drawable(self) -> LayerContrasts:
        """These contrasts; raises ValueError where there is nothing to draw."""
        if self.missing:
            raise ValueError(f"layer {self.layer!r} cannot be drawn at {self.unit} {self.step}: {self.missing}; take another step or layer")
        return self


def contrasts(recording: Recording, layer: str, step: int | None) -> LayerContrasts:
    """Of a layer at a step, by default the last that has profiles.

    Raises ValueError, saying what there is, where the recording has no profiles, or none of this layer or step.
    """
    by_step = recording.findings.get("nap", {})
    if not by_step:
        raise ValueError(
            f"figures are drawn from profiles, and this recording has no findings of analysis 'nap', only of {sorted(recording.findings)}"
        )
    unit = str(recording.manifest.get("step_unit") or "step")
    step = max(by_step) if step is None else step
    if step not in by_step:
        raise ValueError(f"no profiles of {unit} {step!r}; there are profiles of the {unit}s {sorted(by_step)}")
    arrays = by_step[step].arrays
    if f"profile/{layer}" not in arrays:
        raise ValueError(f"no profile of layer {layer!r} at {unit} {step}; there are profiles of {layers_of(recording, step)}")
    seen = profiles.recorded(step, arrays, layers=[layer])
    with np.errstate(all="ignore"):  # what that leads to is told by `missing`
        scaled = seen.scaled(layer)
    return LayerContrasts(layer, step, unit, tuple(seen.names), seen.counts, scaled, seen.silent(layer), seen.without_maps(layer))


def places(recording: Recording, layer: str, step: int, analysis: str) -> tuple[Float64, int]:
    """The positions (u, 2) of a layer's units on the maps of an analysis, and the step whose profiles they are made from, or ALL_STEPS.

    Raises ValueError, saying what there is, where the recording has none.
    """
    by_step = recording.findings.get(analysis, {})
    arrays = by_step[step].arrays if step in by_step else {}
    if f"positions/{layer}" not in arrays:
        there = {
            name: sorted(at for at, found in steps.items() if f"positions/{layer}" in found.arrays) for name, steps in recording.findings.items()
        }
        raise ValueError(
            f"no layout of layer {layer!r} at step {step} by the analysis {analysis!r}; there are layouts of it, by analysis and step: "
            f"{ {name: steps for name, steps in there.items() if steps} or 'none' }"
        )
    made: Array = arrays[f"layout_step/{layer}"]
    return np.asarray(arrays[f"positions/{layer}"], np.float64), int(np.asarray(made, np.int64))


def layout_in_words(made: Sequence[int], unit: str) -> str:
    """What layouts are made from, of maps that are shown together."""
    steps = sorted(set(made))
    if steps == [ALL_STEPS]:
        return f"one layout for all {unit}s"
    return f"layout of {unit} {steps[0]}" if len(steps) == 1 else f"each {unit} in its own layout"


def layers_of(recording: Recording, step: int) -> list[str]:
    """The layers that have a profile at a step."""
    return [name.removeprefix("profile/") for name in recording.findings["nap"][step].arrays if name.startswith("profile/")]
