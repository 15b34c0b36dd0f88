"""The figure of `benchmarks.motion`: motion beside what a layout shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours, told apart with any kind of colour vision, and two greys. Not the random layout: it lies far below all others.
COLOURS = {
    "flas": "#D55E00",
    "pca": "#56B4E9",
    "mds": "#0072B2",
    "som": "#009E73",
    "graph": "#999999",
    "swarm": "#555555",
    "tsne": "#CC79A7",
    "umap": "#000000",
    "pacmap": "#E69F00",
}
MARKS = {"independent": "o", "procrustes": "s", "warm": "^", "penalty": "D", "joint": "P", "last": "X"}
PANELS = {"morans_i": "Moran's I of the maps", "trustworthiness": "trustworthiness"}


def draw(found: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path, default: tuple[str, str]) -> None:
    """Save the figure as PNG."""
    figure = Figure(figsize=(9.4, 4.4), dpi=120, layout="constrained")
    for axes, (measure, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for method, ways in found.items():
            if method not in COLOURS:
                continue
            for way, values in ways.items():
                chosen = (method, way) == default
                axes.plot(
                    values["motion"],
                    values[measure],
                    MARKS[way],
                    color=COLOURS[method],
                    markersize=11 if chosen else 6,
                    markeredgecolor="black" if chosen else "white",
                    markeredgewidth=1.2 if chosen else 0.5,
                    zorder=3 if chosen else 2,
                )
        axes.axvline(0.25, color="#BBBBBB", linewidth=0.8, linestyle="--", zorder=1)
        axes.set_xlabel("motion per epoch, in radii of the map")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], marker="o", linestyle="", color=colour, label=method) for method, colour in COLOURS.items()]
    handles += [Line2D([], [], marker=mark, linestyle="", color="#444444", label=way) for way, mark in MARKS.items()]
    handles.append(Line2D([], [], marker=MARKS[default[1]], linestyle="", color=COLOURS[default[0]], markeredgecolor="black", label="the default"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})
