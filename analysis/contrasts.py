"""What sets groups of inputs apart in a layer: their contrasts, as maps show them and layouts compare units by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netlapse.analysis.nap import contrast
from netlapse.types import Array, Float64, Int64

Against = Literal["uniform", "size", "outcome"] | Sequence[Sequence[str]]
"""What a group's profile is compared with, see `contrasted`."""

AGAINST = ("uniform", "size", "outcome")


@dataclass(frozen=True, eq=False)
class Contrasts:
    """What the topomaps of one step are made of, seen just now or recorded before.

    names       the g groups, or pairs of groups     counts      (g,) inputs in each; of a pair, in the smaller one
    values      layer -> (g, u) each group's contrast, NaN rows for groups that cannot be estimated
    deviations  layer -> the standard deviation of the layer's responses over all inputs
    least       how many inputs a group must have to be estimated
    constant    layer -> (u,) units that did one and the same for all inputs; a layer that is not in it has none
    compared    layer -> (u, f) what a layout compares units by; a layer that is not in it: its contrasts
    broken      layer -> the first input with a response that is no number, where that is known
    """

    step: int
    names: Sequence[str]
    counts: Int64
    values: Mapping[str, Float64]
    deviations: Mapping[str, float]
    least: int = 1
    constant: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    compared: Mapping[str, Float64] = field(default_factory=dict)
    broken: Mapping[str, int] = field(default_factory=dict)

    @property
    def estimable(self) -> NDArray[np.bool_]:
        """(g,) which groups have enough inputs."""
        return np.asarray(self.counts >= max(self.least, 1))

    def not_finite(self, layer: str) -> int:
        """How many of a layer's units have a response to some input that is NaN or infinite: such a layer is not laid out."""
        return int((~np.isfinite(self.values[layer][self.estimable])).any(axis=0).sum())

    def silent(self, layer: str) -> NDArray[np.bool_]:
        """(u,) which units of a layer did one and the same for all inputs: they are laid out apart, and have no part in maps."""
        return self.constant.get(layer, np.zeros(self.values[layer].shape[1], bool))

    def without_layout(self, layer: str) -> str:
        """Why a layer cannot be laid out at this step; empty where it can."""
        if broken := self.not_finite(layer):
            first = f", first for input {self.broken[layer]}" if self.broken.get(layer, -1) >= 0 else ""
            return f"{broken} of {self.values[layer].shape[1]} units {'is' if broken == 1 else 'are'} not finite{first}"
        if self.estimable.any():
            return ""
        return f"no group has {self.least} inputs" if self.least > 1 else "no group has inputs"

    def without_maps(self, layer: str) -> str:
        """Why there are no maps of a layer; empty where there are."""
        return self.without_layout(layer) or ("" if self.deviations[layer] > 0 else "every unit responds alike to every input")

    def features(self, layer: str) -> Float64:
        """(u, f) what a layout compares units by."""
        return self.compared[layer] if layer in self.compared else self.values[layer][self.estimable].T

    def scaled(self, layer: str) -> Float64:
        """(g, u) the contrasts in standard deviations of the layer; where nothing deviates there is no contrast either."""
        return self.values[layer] / (self.deviations[layer] if self.deviations[layer] != 0 else 1.0)


def contrasted(
    names: Sequence[str],
    counts: Int64,
    profiles: Mapping[str, Float64],
    *,
    against: Against = "uniform",
    groups: Sequence[str] | None = None,
    least: int = 1,
) -> tuple[list[str], Int64, dict[str, Float64]]:
    """Names (r), counts (r,) and layer -> contrasts (r, u) of the chosen groups of profiles (g, u).

    against  "uniform": the mean over the chosen groups. "size": their mean weighted by the number of inputs. "outcome": of each
             class, the inputs it gets wrong minus those it gets right (groups by `netlapse.probe.by_outcome`). Or pairs of
             group names: the first minus the second
    groups   the names of the chosen ones; None: all
    least    groups of fewer inputs are NaN, and in no mean

    Raises ValueError for other words, for names that are no groups, and for "outcome" where no class has both groups.
    """
    counts = np.asarray(counts, np.int64)
    place = {name: i for i, name in enumerate(names)}
    chosen = list(names) if groups is None else list(groups)
    pairs = _pairs(names, against)
    unknown = [name for name in [*chosen, *(name for pair in pairs or [] for name in pair)] if name not in place]
    if unknown or not chosen:
        raise ValueError(f"contrasts were asked of the groups {unknown or chosen}; there are {list(names)[:24]}")
    estimable = counts >= max(least, 1)
    profiles = {layer: np.where(estimable[:, None], profile, np.nan) for layer, profile in profiles.items()}
    if pairs is not None:
        first, second = ([place[pair[side]] for pair in pairs] for side in (0, 1))
        with np.errstate(invalid="ignore"):  # a diverged network: infinity minus infinity is NaN, which is what it is
            values = {layer: profile[first] - profile[second] for layer, profile in profiles.items()}
        return [f"{a} - {b}" for a, b in pairs], np.minimum(counts[first], counts[second]), values
    rows = [place[name] for name in chosen]
    weights = counts[rows].astype(np.float64) if against == "size" else None
    return chosen, counts[rows], {layer: contrast(profile[rows], weights if estimable[rows].any() else None) for layer, profile in profiles.items()}


def recorded(
    step: int,
    arrays: Mapping[str, Array],
    *,
    layers: Sequence[str] | None = None,
    against: Against = "uniform",
    groups: Sequence[str] | None = None,
    least: int = 1,
) -> Contrasts:
    """What the arrays that the analysis `nap` recorded at a step say of some layers (None: all), compared as by `contrasted`.

    Raises ValueError where they lack what belongs to a profile, for profiles that are not (groups, units), and as `contrasted`.
    """
    layers = [name.removeprefix("profile/") for name in arrays if name.startswith("profile/")] if layers is None else layers
    missing = {"groups", "counts", *(f"{part}/{layer}" for part in ("profile", "scale") for layer in layers)} - set(arrays)
    if missing or not layers:
        lack = f"no {', '.join(sorted(missing))}" if layers else str(sorted(arrays) or "nothing")
        raise ValueError(
            "maps are made of `groups`, `counts`, and a `profile/` and a `scale/` per layer as the analysis 'nap' records them; "
            f"at step {step} there is {lack}"
        )
    profiles = {layer: np.asarray(arrays[f"profile/{layer}"], np.float64) for layer in layers}
    if wrong := {layer: profile.shape for layer, profile in profiles.items() if profile.ndim != 2}:
        raise ValueError(f"the profiles of step {step} have the shapes {wrong}; expected (groups, units), means over positions")
    names = [str(name) for name in arrays["groups"].tolist()]
    rows, counts, values = contrasted(names, np.asarray(arrays["counts"], np.int64), profiles, against=against, groups=groups, least=least)
    deviations = {layer: float(np.asarray(arrays[f"scale/{layer}"], np.float64)) for layer in layers}
    constant = {layer: np.asarray(arrays[f"constant/{layer}"], bool) for layer in layers if f"constant/{layer}" in arrays}
    broken = {layer: int(np.asarray(arrays[f"broken/{layer}"], np.int64)) for layer in layers if f"broken/{layer}" in arrays}
    return Contrasts(step, rows, counts, values, deviations, least, constant, broken=broken)


def _pairs(names: Sequence[str], against: Against) -> list[tuple[str, str]] | None:
    """The pairs of groups to compare; None where each is compared with a mean."""
    if against == "outcome":
        found = [(name, f"{name[:-6]} correct") for name in names if name.endswith(" wrong") and f"{name[:-6]} correct" in names]
        if not found:
            raise ValueError(f"contrasts by outcome need groups of correct and wrong inputs (grouping by_outcome); there are {list(names)[:24]}")
        return found
    if isinstance(against, str):
        if against not in AGAINST:
            raise ValueError(f"contrasts were asked against {against!r}; allowed are {list(AGAINST)}, or pairs of group names")
        return None
    pairs = [tuple(pair) for pair in against]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"contrasts were asked of the pairs {pairs}; expected at least one, each of two group names: the first minus the second")
    return [(str(a), str(b)) for a, b in pairs]
