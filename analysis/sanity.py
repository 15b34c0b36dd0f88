"""Whether saliency methods look at what this very network has learnt: two checks of each, passed or failed.

Parameters randomised (Adebayo et al., 2018, "Sanity checks for saliency maps"): from the output to the input, one module after
another is given parameters drawn anew. A method whose maps stay as they were shows the input and not the network.
Input shifted (Kindermans et al., 2019, "The (un)reliability of saliency methods"): a constant is added to the input, and what it adds to
the first layer taken from that. The network computes what it did; a method whose maps move shows the scale of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
from scipy.stats import rankdata

from netlapse.analysis.fullgradient import fullgrad, simple_fullgrad, smooth_fullgrad
from netlapse.analysis.onepass import Method
from netlapse.analysis.saliency.analysis import _checked_maps, _named
from netlapse.analysis.saliency.base import batches
from netlapse.analysis.saliency.cam import grad_cam
from netlapse.analysis.saliency.gradients import gradient, gradient_times_input, integrated_gradients, smooth_gradient
from netlapse.analysis.saliency.maps import distance, mean_defined, similarity, similarity_to_others
from netlapse.analysis.saliency.occluding import occlusion
from netlapse.analysis.saliency.panel import Target, check_target, explained_classes
from netlapse.probe import panel_of
from netlapse.render.checks import CheckedRow, checks_table
from netlapse.types import Array, Findings, Float32, Float64, Int64, Network, Snapshot, UInt8, checked_by, ungrouped

METHODS: Mapping[str, Method] = {
    method.__name__: method
    for method in (
        *(gradient, smooth_gradient, gradient_times_input, integrated_gradients, grad_cam),
        *(fullgrad, simple_fullgrad, smooth_fullgrad, occlusion),
    )
}
"""Those that every framework has."""

CHECKS = ("randomised", "shifted")
PASS, FAIL, UNDECIDED, INAPPLICABLE = "pass", "fail", "undecided", "does not apply"
"""What a check says of a method."""

ROUNDING = 1e-4
"""By how much the logits of shifted inputs, over the largest of all, may miss those of the inputs."""
RESAMPLES, LEVEL = 2000, 0.95


def _check(snapshot: Snapshot, *, panel: int, target: Target, **options: object) -> None:
    """The panel is of images and the options are possible, whatever the network says."""
    _check_options(snapshot.probe.inputs.shape, panel, **options)  # type: ignore[arg-type]
    check_target(target, snapshot.probe.class_names)


def _check_options(
    shape: tuple[int, ...],
    panel: int,
    stages: int,
    repeats: int,
    limit: float,
    shift: float,
    tolerance: float,
    examples: int,
    **others: object,
) -> None:
    if len(shape) != 4:
        raise ValueError(f"sanity checks are of maps of images (n, h, w, c); this probe's inputs have shape {shape}; leave this analysis out")
    if panel < 2 or shape[0] < 2:
        raise ValueError(f"sanity was given a panel of {panel} of {shape[0]} inputs; expected at least 2, as a map is compared with those of others")
    if stages < 1 or repeats < 1 or examples < 0:
        raise ValueError(f"sanity was given stages={stages}, repeats={repeats} and examples={examples}; expected at least 1, 1 and 0")
    if not 0 < limit < 1 or not tolerance > 0 or not np.isfinite(shift) or shift == 0:
        raise ValueError(
            f"sanity was given limit={limit}, tolerance={tolerance} and shift={shift}; expected a limit between 0 and 1, a tolerance above 0 and a "
            "shift other than 0"
        )


@ungrouped
@checked_by(_check)
def sanity(
    snapshot: Snapshot,
    previous: Findings | None,
    *,
    methods: Mapping[str, Method] | Sequence[Method] | None = None,
    panel: int = 24,
    target: Target = "label",
    stages: int = 12,
    repeats: int = 3,
    limit: float = 0.5,
    shift: float = 1.0,
    tolerance: float = 1e-3,
    examples: int = 1,
    seed: int = 0,
) -> Findings:
    """Two checks of each saliency method on this network: its parameters randomised from the output on, and its input shifted.

    methods    as for `saliency`; None: all in `METHODS`. One that raises ValueError for this network does not apply, and says why
    panel      how many of the probe's inputs are explained, `target` the class whose score is, both as for `saliency`
    stages     of the cascade, at most: after so many of the modules that have parameters, evenly spread, the last after all
    repeats    seeds from which all parameters are drawn for the last stage; the first is that of the cascade
    shift      the constant that is added to each value of the inputs, in ranges of the panel (its maximum minus its minimum)
    examples   of how many inputs, the first ones, the maps themselves are recorded

    Randomised. The similarity of two maps is Spearman's correlation over positions of their absolute values. Of that which a map
    has with itself, 1, beyond the one that it has by chance, a share is left when nothing is left that was learnt: `kept`,
    (similarity - null) / (1 - null), of means over inputs and repeats. The null is the similarity with the other inputs' maps of
    the same randomised network: what maps have in common whatever is shown. kept is 1 for a method that copies the input and 0
    for one whose maps are as unlike as those of other inputs. It passes where the 95 % interval (bootstrap over inputs) ends
    below `limit`, fails where it begins above, and is undecided between.
    Shifted. The change of a map is |new - old| / |old|; a method passes where its median over inputs is at most `tolerance`.
    Rounding alone is about 1e-7; single maps may change by more, where a ReLU or a maximum turns over within rounding. Where
    logits differ by more than rounding nothing is said of any method.

    arrays    `methods` (m,), `checks` (2,), `verdicts` (m, 2) words, `limits` (2,) what they go by, `reasons` (m, 2) why a
              check does not apply, `inputs` (p,)
              indices into the probe, `panel` (e, h, w, c) the examples, `labels`, `classes` (p,), `modules` (k,) from the output to
              the input and `how` each is drawn, see `Network.randomised`, `stages` (s + 1,) how many of them, from 0.
              For a method `similarity/<method>`, `similarity_signed/<method>` (of the maps with their sign), `similarity_null/<method>`
              (s + 1, p), at the last stage means over repeats; `kept/<method>` (3,) with its interval; `change/<method>` (p,);
              `maps/<method>` (s + 1, e, h, w) of the examples, `maps_shifted/<method>` (e, h, w)
    scalars   `sanity/kept/<method>`, `sanity/similarity/<method>`, `sanity/similarity_signed/<method>` and `sanity/similarity_null/<method>`
              of the last stage, `sanity/change/<method>`, NaN where undefined; `sanity/logits` by how much those of shifted inputs
              miss, over the largest
    images    `sanity`: a table, with the similarity along the cascade

    Raises ValueError for a probe that is not of images, a panel of fewer than 2, options out of their ranges, and no methods.
    """
    probe, network = snapshot.probe, snapshot.network
    _check_options(probe.inputs.shape, panel, stages, repeats, limit, shift, tolerance, examples)
    named = dict(METHODS) if methods is None else _named(methods)
    chosen = panel_of(probe.labels, panel)
    images, labels = np.asarray(probe.inputs[chosen], np.float32), probe.labels[chosen]
    logits = snapshot.once("logits", partial(_outputs, network, images, snapshot.batch_size))
    classes = np.maximum(explained_classes(target, labels, logits, probe.class_names), 0)
    modules = np.asarray(snapshot.once("modules", lambda: np.array(network.parametrised(images)[::-1]))).astype(str)
    if not modules.size:
        raise ValueError("sanity checks randomise parameters, and this network has none")
    how = snapshot.once("how", lambda: _how(network, modules.tolist(), seed))
    reached = np.unique(np.round(np.linspace(1, len(modules), min(stages, len(modules)))).astype(int))
    added = np.float32(shift * (float(images.max() - images.min()) or 1.0))
    missed = snapshot.once("missed", lambda: _missed(network, images, added, logits, snapshot.batch_size))
    arrays: dict[str, Array] = {"methods": np.array(list(named)), "checks": np.array(CHECKS), "inputs": chosen, "panel": images[:examples]}
    arrays |= {"labels": labels, "classes": classes, "modules": modules, "how": how, "stages": np.concatenate([[0], reached])}
    scalars: dict[str, float] = {"sanity/logits": np.nan if missed.dtype.kind == "U" else float(missed)}
    verdicts, reasons = [], []
    for name, method in named.items():
        ask = partial(_answers, name, method, network, images, classes, modules.tolist(), reached.tolist(), repeats, seed, added, missed)
        answered = snapshot.once(f"maps/{name}", ask)
        if answered.dtype.kind == "U":
            verdicts.append((INAPPLICABLE, INAPPLICABLE))
            reasons.append((str(answered),) * 2)
            continue
        maps = np.asarray(answered, np.float32)
        cascade, moved = maps[:-1], maps[-1]
        last = len(reached)
        found = _along(cascade, last)
        kept = _kept(found["similarity"][-1], found["similarity_null"][-1], seed)
        change = distance(cascade[0], moved)
        not_shifted = _why_not_shifted(missed)
        verdicts.append((_randomised(kept, limit), INAPPLICABLE if not_shifted else _shifted(change, tolerance)))
        reasons.append(("", not_shifted))
        arrays |= {f"{number}/{name}": values for number, values in found.items()}
        arrays |= {f"kept/{name}": kept, f"change/{name}": change}
        arrays |= {f"maps/{name}": cascade[: last + 1, :examples], f"maps_shifted/{name}": moved[:examples]}
        scalars |= {f"sanity/{number}/{name}": mean_defined(values[-1]) for number, values in found.items()}
        scalars |= {f"sanity/kept/{name}": float(kept[0]), f"sanity/change/{name}": _median(change)}
    arrays |= {"verdicts": np.array(verdicts), "reasons": np.array(reasons), "limits": np.array([limit, tolerance])}
    return Findings(arrays, scalars, {"sanity": _drawn(arrays, f"step {snapshot.step}")})


# ---- what the network is asked ---------------------------------------------------------------------------------------


def _outputs(network: Network, images: Array, batch_size: int) -> Float32:
    return np.concatenate([network.outputs(images[batch]) for batch in batches(len(images), batch_size)])


def _how(network: Network, modules: Sequence[str], seed: int) -> Array:
    with network.randomised(modules, _seeds(seed, 1)[0]) as how:
        return np.array([how[name] for name in modules])


def _seeds(seed: int, n: int) -> list[int]:
    """Far from the seed itself, which may be that of the training: its initial weights are not drawn anew, and what was learnt is near them."""
    return [int(state) for state in np.random.SeedSequence(seed).generate_state(n)]


def _missed(network: Network, images: Float32, added: np.float32, logits: Float32, batch_size: int) -> Array:
    """By how much the logits of shifted inputs miss those of the inputs, over the largest; a string, why these cannot be shifted."""
    try:
        with network.shifted(np.full(images.shape[1:], added)):
            found = _outputs(network, images + added, batch_size)
    except ValueError as error:
        return np.array(str(error))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(found - logits).max() / np.abs(logits).max(), np.float64)


def _why_not_shifted(missed: Array) -> str:
    if missed.dtype.kind == "U":
        return str(missed)
    share = float(np.asarray(missed, np.float64))
    if not share <= ROUNDING:
        return (
            f"the logits of shifted inputs miss those of the inputs by {share:.1g} of the largest, more than rounding: "
            "something other than the network's first layer takes its inputs"
        )
    return ""


def _answers(
    name: str,
    method: Method,
    network: Network,
    images: Float32,
    classes: Int64,
    modules: Sequence[str],
    reached: Sequence[int],
    repeats: int,
    seed: int,
    added: np.float32,
    missed: Array,
) -> Array:
    """(1 + s + repeats - 1 + 1, n, h, w) the maps: as the network is, along the cascade, randomised otherwise, and of shifted inputs.

    A string, why the method does not apply, where it raises ValueError for the network as it is.
    """
    try:
        maps = [_checked_maps(name, method(network, images, classes), len(images))]
    except ValueError as error:
        return np.array(str(error))
    first, *others = _seeds(seed, repeats)
    for randomised, own_seed in [*((modules[:count], first) for count in reached), *((modules, other) for other in others)]:
        with network.randomised(randomised, own_seed):
            maps.append(_checked_maps(name, method(network, images, classes), len(images)))
    applies = not _why_not_shifted(missed)
    with network.shifted(np.full(images.shape[1:], added)) if applies else nullcontext():
        maps.append(_checked_maps(name, method(network, images + added, classes), len(images)) if applies else np.full_like(maps[0], np.nan))
    return np.stack(maps)


# ---- what is made of it ----------------------------------------------------------------------------------------------


def ranks(maps: Float32 | Float64) -> Float64:
    """(n, h, w) each value's rank in its map, equal values sharing the mean of theirs; NaN for a map that is not finite.

    Pearson's correlation of ranks is Spearman's of the values.
    """
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    found = np.full(flat.shape, np.nan)
    finite = np.isfinite(flat).all(axis=1)
    if finite.any():
        found[finite] = rankdata(flat[finite], axis=1)
    return found.reshape(np.shape(maps))


def _along(maps: Float32, last: int) -> dict[str, Float64]:
    """(s + 1, n) similarities with the first of maps (s + repeats, n, h, w); what comes after the last stage repeats that."""
    found = {}
    for number, compared, size in (
        ("similarity", similarity, np.abs),
        ("similarity_signed", similarity, np.asarray),
        ("similarity_null", similarity_to_others, np.abs),
    ):
        first, *others = (ranks(size(one)) for one in maps)
        values = np.stack([compared(first, one) for one in (first, *others)])  # type: ignore[operator, arg-type]
        found[number] = np.concatenate([values[:last], [_mean_over_repeats(values[last:])]])
    return found


def _mean_over_repeats(values: Float64) -> Float64:
    return np.array([mean_defined(column) for column in values.T])


def _kept(similarities: Float64, null: Float64, seed: int) -> Float64:
    """(3,) the share of a map's similarity with itself that is left, beyond that by chance, and the ends of its interval."""
    there = np.isfinite(similarities) & np.isfinite(null)
    if there.sum() < 2:
        return np.full(3, np.nan)
    similarities, null = similarities[there], null[there]

    def share(drawn: Int64) -> Float64:
        by_chance = null[drawn].mean(axis=-1)
        room = np.where(np.isclose(by_chance, 1, rtol=0, atol=1e-9), np.nan, 1 - by_chance)  # none where all inputs have one map
        return np.asarray((similarities[drawn].mean(axis=-1) - by_chance) / room, np.float64)

    resamples = np.random.default_rng(seed).integers(len(null), size=(RESAMPLES, len(null)))
    low, high = np.quantile(share(resamples), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return np.array([float(share(np.arange(len(null)))), low, high])


def _randomised(kept: Float64, limit: float) -> str:
    return PASS if kept[2] < limit else FAIL if kept[1] > limit else UNDECIDED


def _shifted(change: Float64, tolerance: float) -> str:
    median = _median(change)
    return UNDECIDED if np.isnan(median) else PASS if median <= tolerance else FAIL


def _median(values: Float64) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else float("nan")


# ---- the picture -----------------------------------------------------------------------------------------------------


def words(verdict: str, check: str, arrays: Mapping[str, Array], name: str) -> tuple[str, str]:
    """A verdict and the number it goes by, as they are written in a table."""
    if verdict == INAPPLICABLE:
        return verdict, ""
    if check == "randomised":
        share, low, high = np.asarray(arrays[f"kept/{name}"], np.float64) + 0.0
        return verdict, "maps are blank, or all alike" if np.isnan(share) else f"keeps {share:.2f} ({low:.2f} to {high:.2f})"
    median = _median(np.asarray(arrays[f"change/{name}"], np.float64))
    return verdict, "maps are blank" if np.isnan(median) else f"moves by {median:.2g}"


def stage_names(arrays: Mapping[str, Array]) -> list[str]:
    """What is randomised at each stage, in words: nothing, all from the output to a module, everything."""
    modules = [str(name) or "the network" for name in arrays["modules"].tolist()]
    reached = np.asarray(arrays["stages"], np.int64).tolist()
    return (
        ["as it is", *(f"random {modules[0]} to {modules[count - 1]}" for count in reached[1:-1]), "all random"] if len(reached) > 1 else ["as it is"]
    )


def explanations(arrays: Mapping[str, Array]) -> list[str]:
    """How the table is read, in sentences."""
    limit, tolerance = np.asarray(arrays["limits"], np.float64).tolist()
    how = [f"{name or 'the network itself'}: {way}" for name, way in zip(arrays["modules"].tolist(), arrays["how"].tolist()) if way != "drawn"]
    otherwise = [f"Not drawn anew but with their own values in another order: {', '.join(how)}."] if how else []
    return [
        "Parameters randomised: the share of a map's likeness with itself, beyond that with maps of other inputs, that it keeps when nothing is left "
        f"of what was learnt (0: none, 1: all). pass: the 95 % interval ends below {limit:g}; fail: it begins above.",
        "Input shifted: how far maps move, as a share of their size, when a constant is added to the input and made up for in the first layer, "
        f"so that the network computes what it did. pass: at most {tolerance:g}.",
        *otherwise,
    ]


def _drawn(arrays: Mapping[str, Array], when: str) -> UInt8:
    rows = []
    for name, verdicts, reasons in zip(arrays["methods"].tolist(), arrays["verdicts"].tolist(), arrays["reasons"].tolist()):
        cells = [words(verdict, check, arrays, name) for verdict, check in zip(verdicts, CHECKS)]
        curve, chance = (
            _mean_of_each(arrays[f"{number}/{name}"]) if f"{number}/{name}" in arrays else None for number in ("similarity", "similarity_null")
        )
        rows.append(CheckedRow(name, cells, curve, chance, reasons[0]))
    title = f"do maps follow what was learnt? {len(rows)} saliency methods, {len(arrays['inputs'])} inputs, {when}"
    label = "similarity with the network's own map, 0 to 1, as ever more is randomised; dashed: with other inputs' maps"
    names = ["nothing randomised", "all randomised"]
    return checks_table(rows, ["parameters randomised", "input shifted"], names, title, label, explanations(arrays))


def _mean_of_each(values: Array) -> Float64:
    return np.array([mean_defined(row) for row in np.asarray(values, np.float64)])
