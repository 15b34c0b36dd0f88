"""What a run recorded, in memory: what `netlapse.load` returns and what the time-lapse page is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from netlapse.events import Event, events_in
from netlapse.types import Array, Findings, Float64, Int64


@dataclass(frozen=True, eq=False)
class Series:
    """One quantity over the steps at which it was found.

    steps   (s,) ascending
    values  (s, ...) the quantity at each of them
    axes    what each axis of `values` counts; the first is "step"
    """

    steps: Int64
    values: Array
    axes: tuple[str, ...]

    def at(self, step: int) -> Array:
        """The value at one step; raises KeyError, with the steps there are, when it was not observed."""
        found = np.flatnonzero(self.steps == step)
        if not len(found):
            raise KeyError(f"nothing found at step {step}; this quantity has steps {self.steps.tolist()}")
        return np.asarray(self.values[found[0]])


# What the axes of an array found by a shipped analysis count, by the first part of its name.
_OF_UNITS = ("group", "unit")
_AXES = {
    **dict.fromkeys(("profile", "first", "contrast", "variance", "error", "sparsity", "highest", "low", "high"), _OF_UNITS),
    "constant": ("unit",),
    **dict.fromkeys(("top", "top_values"), ("unit", "rank")),
    "top_positions": ("unit", "rank", "coordinate"),
    "positions": ("unit", "coordinate"),
    "samples": ("input", "coordinate"),
    **dict.fromkeys(("maps", "maps_first"), ("input", "row", "column")),
    **dict.fromkeys(("counts", "groups", "rows", "names"), ("group",)),
    "panel": ("input", "row", "column", "channel"),
    **dict.fromkeys(("inputs", "labels", "predictions", "confidence", "classes"), ("input",)),
    # Of other inputs than the panel, or of some of it: by names of their own, as they count something else.
    **dict.fromkeys(("measures", "measures_null"), ("measured",)),
    "maps_chosen": ("chosen", "row", "column"),
    "panel_chosen": ("chosen", "row", "column", "channel"),
    **dict.fromkeys(("inputs_chosen", "why_chosen", "labels_chosen", "predictions_chosen", "confidence_chosen", "classes_chosen"), ("chosen",)),
    "predictions_probe": ("probe",),
    # Of units, and of those among them that have a field.
    **dict.fromkeys(("class", "purity", "since", "stability"), ("unit",)),
    **dict.fromkeys(("units", "area", "diameter", "eccentricity", "offset", "ratio"), ("fielded",)),
    "fields": ("fielded", "down", "right"),
    "theory": ("direction", "size stride offset"),
    # Of how alike layers are.
    **dict.fromkeys(("responses", "responses_first"), ("input", "unit")),
    **dict.fromkeys(("responses_range", "responses_first_range"), ("low high", "unit")),
    "layers": ("layer",),
    "cka": ("layer", "other"),
    # Of what happened.
    **dict.fromkeys(("events", "event_steps", "event_kinds", "event_about", "event_layers"), ("event",)),
    # Of images in a folder.
    **dict.fromkeys(("ids", "indices"), ("image",)),
    "thumbnails": ("image", "row", "column", "channel"),
    **dict.fromkeys(("unread", "unread_why"), ("unread",)),
}
_BOUNDED, _STAGED = "value low high", ("stage", "input")
_AXES_OF: dict[str, dict[str, tuple[str, ...]]] = {
    # Of analyses whose names of arrays are others' too: by the analysis' function.
    "changes": {
        "window": ("checkpoint", "layer"),
        "steps": ("checkpoint",),
        "apart": ("checkpoint", "pair"),
        "pairs": ("pair", "one other"),
        **dict.fromkeys(("look_steps", "look_kinds", "look_about", "look_layers", "look_unusual", "look_sentences"), ("look",)),
    },
    "fairness": {
        "attributes": ("attribute",),
        "layers": ("layer",),
        "classes": ("class",),
        "groups": ("group",),
        **dict.fromkeys(("steps", "bounds", "saliency_difference", "saliency_by_chance", "saliency_score", "saliency_p"), ("observed",)),
        "counts": ("group", "label", "prediction"),
        "calibration": ("group", "bin", "inputs confidence right"),
        "accuracy": (_BOUNDED, "group"),
        **dict.fromkeys(("recall", "false_positive_rate", "precision", "selection_rate"), (_BOUNDED, "group", "class")),
        **dict.fromkeys(("demographic_parity", "equal_opportunity", "equalised_odds"), ("class",)),
        "in_force": ("gap growing",),
        **dict.fromkeys(("difference", "by_chance", "score", "p"), ("observed", "layer")),
        **dict.fromkeys(("maxima", "saliency_maxima"), ("labelling",)),
        "saliency_by_group": ("group", "row", "column"),
        **dict.fromkeys(("decodability", "decodability_baseline"), ("layer",)),
        "by_group": ("group", "unit"),
        "right": ("checkpoint", "input"),
    },
    "predictions": {
        "confusion": ("label", "prediction"),
        **dict.fromkeys(("classes", "precision", "recall", "f1", "support", "auc", "average_precision"), ("class",)),
        "roc": ("class", "false positive rate"),
        "precision_recall": ("class", "recall"),
        **dict.fromkeys(("predictions", "confidence", "loss", "right", "wrong", "times_forgotten", "right_since"), ("input",)),
        "recent": ("checkpoint", "input"),
        "kinds": ("kind", "input"),
        "errors": ("error",),
    },
    "sanity": {
        "methods": ("method",),
        "checks": ("check",),
        "limits": ("limit tolerance",),
        "stages": ("stage",),
        **dict.fromkeys(("verdicts", "reasons"), ("method", "check")),
        **dict.fromkeys(("modules", "how"), ("module",)),
        **dict.fromkeys(("inputs", "labels", "classes", "change"), ("input",)),
        "panel": ("example", "row", "column", "channel"),
        **dict.fromkeys(("similarity", "similarity_signed", "similarity_null"), _STAGED),
        "kept": (_BOUNDED,),
        "maps": ("stage", "example", "row", "column"),
        "maps_shifted": ("example", "row", "column"),
    },
}
_POSITIONS = {3: ("token",), 4: ("row", "column")}  # between group and unit, of an array of so many axes


def merged(manifest: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """A manifest with more in it: later entries replace earlier ones, but those that are mappings are joined."""
    joined = {key: {**manifest[key], **value} for key, value in more.items() if isinstance(value, Mapping) and isinstance(manifest.get(key), Mapping)}  # type: ignore[dict-item]
    return {**manifest, **more, **joined}


@dataclass(frozen=True, eq=False)
class Recording:
    """Findings by analysis and step, with the manifest that says what they are of."""

    manifest: Mapping[str, object] = field(default_factory=dict)
    findings: Mapping[str, Mapping[int, Findings]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step at which any analysis found something, ascending."""
        return tuple(sorted({step for by_step in self.findings.values() for step in by_step}))

    @property
    def events(self) -> tuple[tuple[str, Event], ...]:
        """What happened: (analysis, event) of all that the analyses tell of at their last steps, by step."""
        last = {name: by_step[max(by_step)] for name, by_step in self.findings.items() if by_step}
        return tuple(sorted(((name, event) for name, found in last.items() for event in events_in(found)), key=lambda pair: (pair[1].step, pair[0])))

    def array(self, analysis: str, name: str) -> Series:
        """One array of one analysis over all its steps, as `recording.array("nap", "profile/conv1")`.

        Steps at which it was not found, or has another shape than at the last step, are left out.
        Raises KeyError, with what there is, when it was never found.
        """
        by_step = self.findings.get(analysis)
        if by_step is None:
            raise KeyError(f"no analysis {analysis!r} in this run; it has {sorted(self.findings)}")
        having = {step: found.arrays[name] for step, found in sorted(by_step.items()) if name in found.arrays}
        if not having:
            raise KeyError(f"analysis {analysis!r} found no array {name!r}; it has {sorted({n for f in by_step.values() for n in f.arrays})}")
        shape = having[max(having)].shape
        having = {step: values for step, values in having.items() if values.shape == shape}
        axes = (_AXES | _AXES_OF.get(self._function(analysis), {})).get(name.split("/")[0], ())
        if axes == _OF_UNITS and len(shape) in _POSITIONS:
            axes = ("group", *_POSITIONS[len(shape)], "unit")
        named = axes if len(axes) == len(shape) else tuple(f"axis {i}" for i in range(len(shape)))
        return Series(np.array(list(having), np.int64), np.stack(list(having.values())), ("step", *named))

    def _function(self, analysis: str) -> str:
        """The name of an analysis' function, whatever it was called in the run."""
        asked = self.manifest.get("asked")
        of = asked.get(analysis) if isinstance(asked, Mapping) else None
        return str(of.get("analysis", analysis)) if isinstance(of, Mapping) else analysis

    @property
    def scalars(self) -> dict[str, Series]:
        """Every metric over its steps."""
        points: dict[str, dict[int, float]] = {}
        for by_step in self.findings.values():
            for step, found in by_step.items():
                for name, value in found.scalars.items():
                    points.setdefault(name, {})[step] = value
        return {name: Series(_int64(sorted(at)), _float64([at[step] for step in sorted(at)]), ("step",)) for name, at in sorted(points.items())}


def _int64(values: list[int]) -> Int64:
    return np.array(values, np.int64)


def _float64(values: list[float]) -> Float64:
    return np.array(values, np.float64)
