"""What several runs learned inside, side by side, from what they recorded: no network, no framework.

CKA says how alike the runs are, and asks no more of their units than that they saw the same inputs. Maps say in what, and ask for one layout:
the units of every run are matched with those of a reference run, and drawn at their counterparts' places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from netlapse.analysis.contrasts import Against, recorded
from netlapse.analysis.similarity import alignments, gram, unpacked
from netlapse.analysis.topomap import interpolate, places_before
from netlapse.matching import Matching, match_units, placed
from netlapse.recording import Recording
from netlapse.types import Array, Findings, Float64, Int64

By = Literal["responses", "profiles"]
"""What units are matched by: their responses to the same inputs, or their contrasts between the same groups of inputs."""


def shared_layers(recordings: Sequence[Recording]) -> list[str]:
    """The layers whose responses all runs recorded, in the order of the first run; none where they have none in common."""
    names = [_layers(recording) for recording in recordings]
    return [layer for layer in names[0] if all(layer in others for others in names)] if names else []


def last_shared_step(recordings: Sequence[Recording], analysis: str) -> int:
    """The last step at which all runs have findings of an analysis; raises ValueError, with the steps each has, where there is none."""
    return max(_shared_steps(recordings, analysis))


def _shared_steps(recordings: Sequence[Recording], analysis: str) -> set[int]:
    steps = [sorted(recording.findings.get(analysis, {})) for recording in recordings]
    shared = set(steps[0]).intersection(*steps) if steps else set()
    if not shared:
        raise ValueError(
            f"{len(steps)} runs have no step in common at which all recorded the analysis {analysis!r}; its steps, run by run: {_short(steps)}; "
            "record it in all of them at the same steps, also afterwards from checkpoints"
        )
    return shared


def run_similarity(recordings: Sequence[Recording], layer: str, step: int | None = None, *, debiased: bool = True) -> Float64:
    """(r, r) the CKA of a layer in each run with that layer in each other one, at a step; None: the last that all have.

    From what the analysis `similarity` recorded; see `netlapse.analysis.similarity.cka`. The layer may have any width in each of them. NaN
    for a run whose responses do not vary or are not finite. For layers of other names see `layer_similarity`.

    Raises ValueError for runs that were shown other inputs, and where one did not record the layer, or the step.
    """
    grams = [gram(_responses(found, layer, number)) for number, found in enumerate(_same_inputs(recordings, "similarity", step))]
    return alignments(grams, grams, debiased=debiased)


def layer_similarity(first: Recording, second: Recording, step: int | None = None, *, debiased: bool = True) -> tuple[list[str], list[str], Float64]:
    """The layers of two runs, and (l, l2) the CKA of each of the first with each of the second: networks of any two architectures.

    Raises ValueError as `run_similarity`.
    """
    one, other = _same_inputs([first, second], "similarity", step)
    names = [[str(name) for name in np.asarray(found.arrays["layers"]).tolist()] for found in (one, other)]
    grams = [[gram(_responses(found, layer, number)) for layer in names[number]] for number, found in enumerate((one, other))]
    return names[0], names[1], alignments(grams[0], grams[1], debiased=debiased)


def saliency_similarity(recordings: Sequence[Recording], method: str, step: int | None = None, *, debiased: bool = True) -> Float64:
    """(r, r) the CKA of the runs' saliency maps by a method, each map as the features of its input; None: the last step that all have.

    It tells whether inputs that are explained alike in one run are so in the other, not whether the same pixels are salient. Of the
    panel's inputs those count whose maps are finite in all runs.

    Raises ValueError as `run_similarity`, where a run has no maps by that method, and where debiased for fewer than 4 inputs.
    """
    found = _same_inputs(recordings, "saliency", step)
    methods = [[name.removeprefix("maps/") for name in one.arrays if name.startswith("maps/")] for one in found]
    if lacking := [number for number, names in enumerate(methods) if method not in names]:
        raise ValueError(f"runs {_short(lacking)} have no saliency maps by {method!r}; run by run there are {_short(methods)}")
    maps = [np.asarray(one.arrays[f"maps/{method}"], np.float64).reshape(len(one.arrays["inputs"]), -1) for one in found]
    finite = np.all([np.isfinite(rows).all(axis=1) for rows in maps], axis=0)
    grams = [gram(rows[finite]) for rows in maps]
    return alignments(grams, grams, debiased=debiased)


def medoid(similarity: Float64) -> int:
    """The run that is most like the others, by the sum of its row (r, r); of equal ones the first. What is NaN counts nothing."""
    return int(np.where(np.isnan(similarity), 0, similarity).sum(axis=1).argmax())


def matched(
    recordings: Sequence[Recording],
    layer: str,
    step: int | None = None,
    *,
    reference: int = 0,
    by: By = "responses",
    permutations: int = 100,
    seed: int = 0,
) -> list[Matching]:
    """The matching of the reference run's units of a layer with those of each run, itself among them, at a step; None: the last all have.

    by            "responses" to the same inputs, as the analysis `similarity` recorded them: a unit is told from others by hundreds of
                  numbers. "profiles": contrasts between groups, as `nap` recorded them; for runs that were shown other inputs, and no
                  better than the groups are many
    permutations  of the null, for each run; those of inputs are within their classes, see `match_units`

    Raises ValueError as `run_similarity` for responses; for profiles where the groups are not the same; for another `by` and for a reference
    that is no run.
    """
    if by not in get_args(By) or not 0 <= reference < len(recordings):
        raise ValueError(
            f"matched was given by={by!r} and the reference {reference} among {len(recordings)} runs; expected one of {list(get_args(By))} and a "
            "number from 0"
        )
    within: Int64 | None = None
    if by == "responses":
        found = _same_inputs(recordings, "similarity", step)
        rows = [_responses(one, layer, number).T for number, one in enumerate(found)]
        within = np.asarray(found[reference].arrays["labels"], np.int64)
    else:
        rows = _same_groups(_at(recordings, "nap", step), layer)
    # A run is its own counterpart: no null is asked of that.
    drawn = [0 if number == reference else permutations for number in range(len(rows))]
    return [match_units(rows[reference], one, within=within, permutations=n, seed=seed) for one, n in zip(rows, drawn)]


def places_of_runs(
    recordings: Sequence[Recording], layer: str, matchings: Sequence[Matching], *, reference: int = 0, step: int | None = None, least: float = 0.0
) -> list[Float64]:
    """For each run (u, 2) where its units of a layer lie on the reference run's layout, as the analysis `topomap` recorded it at a step.

    NaN for units without a counterpart of a correlation above `least`, see `netlapse.matching.placed`.
    Raises ValueError where the reference has no layout of the layer at the step; None: its last.
    """
    by_step = recordings[reference].findings.get("topomap", {})
    having = [at for at, found in by_step.items() if places_before(found, layer) is not None]
    chosen = max(having, default=None) if step is None else step
    if chosen is None or chosen not in having:
        raise ValueError(f"run {reference} has no layout of layer {layer!r} at step {step}; the analysis topomap recorded it at {sorted(having)}")
    known = places_before(by_step[chosen], layer)
    assert known is not None
    return [placed(known[0], matching, least=least) for matching in matchings]


@dataclass(frozen=True, eq=False)
class MapsOfRuns:
    """Maps of one layer in several runs, at several steps, on one layout.

    maps      (runs, steps, g, r, r) contrasts in standard deviations of the layer; NaN where a run has no findings of a step
    steps     (steps,)       groups  (g,) names
    left_out  (runs, steps) how many units have no part in the map: without a place, constant or not finite
    """

    maps: Float64
    steps: tuple[int, ...]
    groups: tuple[str, ...]
    left_out: Int64


def maps_of_runs(
    recordings: Sequence[Recording],
    layer: str,
    places: Sequence[Float64],
    steps: Sequence[int] | None = None,
    *,
    resolution: int = 40,
    against: Against = "uniform",
    groups: Sequence[str] | None = None,
) -> MapsOfRuns:
    """The maps of a layer in each run at the steps (None: all that the runs share), with its units at the given places (u, 2), NaN for none.

    against, groups   as for `netlapse.analysis.topomap.topomap`

    Raises ValueError where runs have other groups or no step in common, and where a run's units are not as many as its places.
    """
    shared = _shared_steps(recordings, "nap")
    chosen = sorted(shared) if steps is None else list(steps)
    _check_layer(recordings[0].findings["nap"][max(shared)], layer, 0)
    names = recorded(max(shared), recordings[0].findings["nap"][max(shared)].arrays, layers=[layer], against=against, groups=groups).names
    maps = np.full((len(recordings), len(chosen), len(names), resolution, resolution), np.nan)
    left_out = np.zeros((len(recordings), len(chosen)), np.int64)
    for run, (recording, positions) in enumerate(zip(recordings, places, strict=True)):
        for place, step in enumerate(chosen):
            found = recording.findings["nap"].get(step)
            left_out[run, place] = len(positions)
            if found is None:
                continue
            _check_layer(found, layer, run)
            seen = recorded(step, found.arrays, layers=[layer], against=against, groups=groups)
            if list(seen.names) != list(names):
                raise ValueError(f"run {run} has the groups {_short(seen.names)} and run 0 {_short(names)}; expected the same in all")
            if seen.values[layer].shape[1] != len(positions):
                raise ValueError(f"run {run} has {seen.values[layer].shape[1]} units in layer {layer!r}, and was given places {positions.shape}")
            drawn = np.isfinite(positions).all(axis=1) & ~seen.silent(layer)
            if not seen.without_maps(layer) and drawn.any():
                maps[run, place] = interpolate(positions[drawn], seen.scaled(layer)[:, drawn], resolution)
                left_out[run, place] = (~drawn).sum()
    return MapsOfRuns(maps, tuple(chosen), tuple(names), left_out)


def _at(recordings: Sequence[Recording], analysis: str, step: int | None) -> list[Findings]:
    """Each run's findings of an analysis at a step, or the last that all have."""
    last = last_shared_step(recordings, analysis)
    at = last if step is None else step
    if lacking := [number for number, recording in enumerate(recordings) if at not in recording.findings[analysis]]:
        raise ValueError(f"runs {_short(lacking)} have no findings of {analysis!r} at step {at}; the last step that all have is {last}")
    return [recording.findings[analysis][at] for recording in recordings]


def _same_inputs(recordings: Sequence[Recording], analysis: str, step: int | None) -> list[Findings]:
    """As `_at`; raises ValueError where they are not of the same inputs."""
    hashes = [_probe(recording) for recording in recordings]
    if others := [number for number, known in enumerate(hashes) if known is None or known != hashes[0]]:
        raise ValueError(
            f"runs {_short(others)} were shown other inputs than run 0: the hashes of their probes are "
            f"{_short([(known or 'unknown')[:12] for known in hashes])}; "
            "what runs do can be compared for the same inputs alone: give all of them one probe, as probe.seed=0 in a sweep over seeds"
        )
    found = _at(recordings, analysis, step)
    if others := [number for number, one in enumerate(found) if not np.array_equal(one.arrays["inputs"], found[0].arrays["inputs"])]:
        raise ValueError(f"runs {_short(others)} recorded {analysis} of other inputs of the probe than run 0; record it with the same options")
    return found


def _same_groups(found: Sequence[Findings], layer: str) -> list[Float64]:
    """Each run's contrasts (u, g) of a layer, of the groups that all have inputs of."""
    for number, one in enumerate(found):
        _check_layer(one, layer, number)
    groups = [np.asarray(one.arrays["groups"]).tolist() for one in found]
    if others := [number for number, names in enumerate(groups) if names != groups[0]]:
        raise ValueError(f"runs {_short(others)} have the groups {_short(groups[others[0]])} and run 0 {_short(groups[0])}; expected the same in all")
    filled = np.all([np.asarray(one.arrays["counts"], np.int64) > 0 for one in found], axis=0)
    return [np.asarray(one.arrays[f"profile/{layer}"], np.float64)[filled].T for one in found]


def _check_layer(found: Findings, layer: str, number: int) -> None:
    if f"profile/{layer}" not in found.arrays:
        there = [name.removeprefix("profile/") for name in found.arrays if name.startswith("profile/")]
        raise ValueError(f"run {number} has no profiles of layer {layer!r}; it has those of {there}")


def _responses(found: Findings, layer: str, number: int) -> Float64:
    responses = unpacked(found.arrays, layer)
    if responses is None:
        raise ValueError(
            f"run {number} recorded no responses of layer {layer!r}; it has {np.asarray(found.arrays['layers']).tolist()}; compare layers of other "
            "names with layer_similarity"
        )
    return responses


def _layers(recording: Recording) -> list[str]:
    by_step: Mapping[int, Findings] = recording.findings.get("similarity", {})
    return [] if not by_step else [str(name) for name in np.asarray(by_step[max(by_step)].arrays["layers"]).tolist()]


def _probe(recording: Recording) -> str | None:
    about = recording.manifest.get("probe")
    known = about.get("hash") if isinstance(about, Mapping) else None
    return None if known is None else str(known)


def _short(values: Sequence[object] | Array) -> str:
    """A list in words, of a sweep of a hundred runs the first ones."""
    listed = list(values)
    return str(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
