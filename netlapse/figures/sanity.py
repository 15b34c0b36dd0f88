"""Which saliency methods are to be believed on a network: their maps along the cascade, and what two checks say of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netlapse.analysis.saliency.analysis import DENSITY_LIMIT
from netlapse.analysis.saliency.base import resize
from netlapse.analysis.saliency.maps import density, mean_defined
from netlapse.analysis.sanity import INAPPLICABLE, explanations, stage_names, words
from netlapse.figures.sheet import FAINT, GAP, INK, LABEL, PAGE, SMALL, TITLE, Sheet, broken, checked_width, empty, own_style, text_height
from netlapse.recording import Recording
from netlapse.render.colours import SEQUENTIAL, sequential
from netlapse.types import Array, Float64

NAME, WORDS = 2.3, 2.45
"""Centimetres of the column of names, and of each check's."""
CURVE = 3.2
CHECKED = {"randomised": "parameters randomised", "shifted": "input shifted"}


def sanity(
    recording: Recording, step: int | None = None, *, analysis: str = "sanity", maps: int = 4, title: str | None = None, width: float = PAGE
) -> Sheet:
    """A row for each method: maps of one input along the cascade, the similarity to the first of them, and what each check says.

    step      None: the last one that was checked
    analysis  the name under which `netlapse.analysis.sanity.sanity` was observed
    maps      of how many stages, evenly spread, the maps are shown; the first is that of the network as it is
    title     None: what was checked; "": none
    width     centimetres, in print

    Maps are drawn as multiples of an even spread, from 0 to 6. In the curves the line is the mean similarity over inputs, from 0 to 1,
    and the dashed one that with other inputs' maps. A fail is white on black. Raises ValueError, saying what there is, for an analysis or a
    step that the recording has not, and for a number of maps that is not 2 or more, or for which the width has no room.
    """
    arrays, step = _found(recording, step, analysis)
    unit, width = str(recording.manifest.get("step_unit") or "step"), checked_width(width)
    stages = np.asarray(arrays["stages"], np.int64)
    shown = np.unique(np.round(np.linspace(0, len(stages) - 1, min(maps, len(stages)))).astype(int)) if len(arrays["panel"]) else np.array([], int)
    left = NAME + 2 * GAP
    curve_at = width - 2 * (WORDS + GAP) - CURVE - GAP
    tile = min(1.25, (curve_at - left - GAP) / max(len(shown), 1) - GAP)
    if maps < 2 or tile < 0.6:
        raise ValueError(f"{maps} maps do not fit into a figure of {width} cm; expected 2 or more, or a wider figure")
    names = [str(name) for name in arrays["methods"].tolist()]
    heading = f"{len(names)} saliency methods \u00b7 {len(arrays['inputs'])} inputs \u00b7 {unit} {step}" if title is None else title
    heading = broken(heading, width - 2 * GAP, TITLE)
    over = [broken(text, tile + GAP / 2, SMALL, 4) for text in np.array(stage_names(arrays))[shown].tolist()]
    top = GAP + (text_height(heading, TITLE) + GAP if heading else 0)
    head = max(text_height(text, SMALL) for text in [*over, "x\nx\nx\nx"])
    pitch = tile + GAP
    notes = [broken(note, width - 2 * GAP, SMALL, 4) for note in explanations(arrays)]
    foot = top + head + GAP + len(names) * pitch + GAP
    with own_style():
        sheet = Sheet(width, foot + sum(text_height(note, SMALL) + 0.05 for note in notes) + GAP)
        sheet.write(heading, GAP, GAP, TITLE)
        for i, text in enumerate(over):
            sheet.write(text, left + i * (tile + GAP) + tile / 2, top + head, SMALL, ha="center", va="bottom")
        label = broken("similarity to the first map, 0 to 1; dashed: with other inputs' maps", CURVE, SMALL, 4)
        sheet.write(label, curve_at + CURVE / 2, top + head, SMALL, ha="center", va="bottom")
        places = [curve_at + CURVE + GAP + i * (WORDS + GAP) for i in range(2)]
        checks = [str(check) for check in arrays["checks"].tolist()]
        for x, check in zip(places, checks):
            sheet.write(broken(CHECKED.get(check, check), WORDS, SMALL, 3), x + WORDS / 2, top + head, SMALL, ha="center", va="bottom")
        for row, name in enumerate(names):
            y = top + head + GAP + row * pitch
            sheet.write(broken(name.replace("_", " "), NAME, LABEL, 3), GAP, y + tile / 2, LABEL, va="center")
            if f"maps/{name}" in arrays:
                _maps(sheet, arrays, name, shown, left, y, tile)
                _curve(sheet, arrays, name, curve_at, y, tile)
            else:
                reason = str(np.asarray(arrays["reasons"])[row, 0])
                empty(sheet, left, y, curve_at + CURVE - left, tile, reason.partition(";")[0])
            for x, check, verdict in zip(places, checks, np.asarray(arrays["verdicts"])[row].tolist()):
                _verdict(sheet, *words(str(verdict), check, arrays, name), x, y, tile)
        y = foot
        for note in notes:
            sheet.write(note, GAP, y, SMALL, color=FAINT)
            y += text_height(note, SMALL) + 0.05
    return sheet


def _found(recording: Recording, step: int | None, analysis: str) -> tuple[Mapping[str, Array], int]:
    by_step = {at: found.arrays for at, found in recording.findings.get(analysis, {}).items() if "verdicts" in found.arrays}
    if not by_step:
        raise ValueError(
            f"no sanity checks by an analysis {analysis!r}; this recording has {sorted(recording.findings)}; make them: ./run reanalyse "
            "run=... +analyses.sanity._target_=netlapse.analysis.sanity.sanity +analyses.sanity._partial_=true"
        )
    step = max(by_step) if step is None else step
    if step not in by_step:
        raise ValueError(f"no sanity checks at step {step!r}; there are some of the steps {sorted(by_step)}")
    return by_step[step], step


def _maps(sheet: Sheet, arrays: Mapping[str, Array], name: str, shown: Array, left: float, y: float, tile: float) -> None:
    size = arrays["panel"].shape[1:3]
    maps = np.asarray(arrays[f"maps/{name}"], np.float32)[np.asarray(shown, np.int64), 0]
    for i, one in enumerate(resize(density(maps), size)):
        x = left + i * (tile + GAP)
        if np.isnan(one).all():
            empty(sheet, x, y, tile, tile, "blank")
            continue
        axes = sheet.place(x, y, tile, tile)
        axes.imshow(SEQUENTIAL[sequential(one, DENSITY_LIMIT)], interpolation="none")
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(linewidth=0.4, color=FAINT)


def _curve(sheet: Sheet, arrays: Mapping[str, Array], name: str, x: float, y: float, height: float) -> None:
    axes = sheet.place(x, y, CURVE, height)
    values, chance = (_means(arrays[f"{number}/{name}"]) for number in ("similarity", "similarity_null"))
    at = np.arange(len(values))
    axes.plot(at, chance, color=FAINT, linestyle=(0, (3, 2)), linewidth=0.8, clip_on=False)
    axes.plot(at, values, color=INK, linewidth=1.0, marker="o", markersize=1.8, clip_on=False)
    axes.set(ylim=(0, 1), xlim=(-0.3, len(values) - 0.7))
    for end in (0, 1):
        axes.axhline(end, color=FAINT, linewidth=0.3)


def _verdict(sheet: Sheet, verdict: str, number: str, x: float, y: float, height: float) -> None:
    axes = sheet.place(x, y, WORDS, height)
    failed = verdict == "fail"
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[], facecolor=INK if failed else "white")
    for spine in axes.spines.values():
        spine.set(linewidth=0.4, color=FAINT)
    lines = broken(number.replace("-", "\u2212"), WORDS - 0.1, SMALL, 2)
    colour = "white" if failed else FAINT if verdict == INAPPLICABLE else INK
    tall = text_height(verdict, LABEL) + text_height(lines, SMALL)
    top = y + (height - tall) / 2
    sheet.write(verdict, x + WORDS / 2, top, LABEL, ha="center", color=colour)
    sheet.write(lines, x + WORDS / 2, top + text_height(verdict, LABEL), SMALL, ha="center", color=colour)


def _means(values: Array) -> Float64:
    return np.array([mean_defined(row) for row in np.asarray(values, np.float64)])
