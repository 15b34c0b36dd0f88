"""Laws of the figures of sample maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netlapse.analysis.samples import samples
from netlapse.figures import Sheet, recorded, save
from netlapse.figures import samples as figure
from netlapse.figures.__main__ import main
from netlapse.figures.samples import _draw
from netlapse.observer import Observer
from netlapse.recording import Recording
from netlapse.render.colours import HUES
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.memory import MemoryTracker
from tests.test_samples import LABELS, ROWS, infinite, places, snapshot


def recording(labels: object = LABELS, classes: tuple[str, ...] = ("a", "b", "c")) -> Recording:
    """Three steps, at the second of which there is no map."""
    tracker = MemoryTracker()
    shot = snapshot(ROWS, labels, classes=classes)
    observer = Observer(shot.probe, {"samples": samples}, tracker, layers=["0"], strict=True)
    observer.start(shot.network)
    for step in range(3):
        observer.observe(infinite(np.nan) if step == 1 else shot.network, step)
    return tracker.recording()


def texts(sheet: Sheet) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in sheet.texts]


def test_a_figure_has_the_points_of_each_step_in_the_colours_of_the_pictures() -> None:
    found = recording()
    sheet = figure(found, "0", [2, 0])
    first, second = (axes for axes in sheet.axes if axes.collections and len(axes.collections[0].get_offsets()) == 30)
    for axes, step in ((first, 2), (second, 0)):
        (drawn,) = axes.collections
        expected = {(*map(float, place), HUES[group]) for place, group in zip(places(found.findings["samples"][step]), LABELS)}
        colours = np.rint(drawn.get_facecolors()[:, :3] * 255).astype(int).tolist()
        assert {(*map(float, place), tuple(colour)) for place, colour in zip(drawn.get_offsets(), colours)} == expected
    words = texts(sheet)
    assert words.index("step 2") < words.index("step 0")
    assert {"a", "b", "c"} <= set(words)
    assert not {"a", "b", "c"} & set(texts(figure(found, "0", [2], legend=False)))
    for step in (2, 0):
        own, on_map = (found.findings["samples"][step].scalars[f"samples/{name}/0"] for name in ("same_group", "same_group_map"))
        assert f"{own:.0%} in the layer, {on_map:.0%} on the map" in words
    assert words[-1].endswith("By chance: 31%.")  # 9 of the 29 others


def test_a_figure_of_a_step_without_a_map_says_so() -> None:
    sheet = figure(recording(), "0", [0, 1, 2])
    assert sum("no map" in text for text in texts(sheet)) == 1
    assert sum(len(axes.collections) == 1 and len(axes.collections[0].get_offsets()) == 30 for axes in sheet.axes) == 2  # type: ignore[arg-type]
    assert {"step 0", "step 1", "step 2"} <= set(texts(sheet))


def test_all_words_of_a_figure_lie_on_it_however_many_groups_and_steps_there_are() -> None:
    many = recording(np.arange(30), tuple(f"a class with a long name, number {i}" for i in range(30)))
    for steps, width in (([2], 8.5), ([0, 1, 2], 8.5), ([0, 2, 0, 2, 0, 2], 17.5)):
        sheet = figure(many, "0", steps, width=width, title="a long title " * 20)
        FigureCanvasAgg(sheet).draw()
        for text in sheet.texts:
            box = text.get_window_extent().transformed(sheet.transFigure.inverted())
            assert -1e-3 <= box.x0 <= box.x1 <= 1.001, text.get_text()
            assert -1e-3 <= box.y0 <= box.y1 <= 1.001, text.get_text()


def test_shapes_tell_groups_beyond_the_tenth_and_a_dot_those_beyond_the_hundredth() -> None:
    axes = Figure().add_subplot()
    _draw(axes, np.zeros((5, 2)), np.array([3, 13, 93, 100, 777]))
    colours = [np.rint(np.vstack([drawn.get_facecolors(), drawn.get_edgecolors()])[:, :3] * 255).astype(int).tolist() for drawn in axes.collections]
    assert len(axes.collections) == 4
    for of_shape in colours[:3]:
        assert list(HUES[3]) in of_shape
    assert colours[3] == [[24, 24, 28]] * len(colours[3])
    shapes = [drawn.get_paths()[0].vertices for drawn in axes.collections]
    assert [len(shape) for shape in shapes[:3]] != [len(shapes[0])] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "9"}, r"no sample maps of layer '9' by the analysis 'samples'; there are, by analysis, those of \{'samples': \['0'\]\}"),
        ({"layer": "0", "analysis": "mine"}, r"by the analysis 'mine'; there are, by analysis"),
        ({"layer": "0", "steps": [7]}, r"asked for of the steps \[7\]; there are some of \[0, 1, 2\]"),
        ({"layer": "0", "steps": []}, r"asked for of the steps \[\]"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_what_there_is(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure(recording(), **arguments)  # type: ignore[arg-type]


def test_a_figure_is_drawn_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker, found = FolderTracker(tmp_path / "record"), recording()
    tracker.start(found.manifest)
    for step, findings in found.findings["samples"].items():
        tracker.log("mine", step, findings)
    main([f"run={tracker.folder}", "what=samples", "layer=0", "steps=[0,2]", "analysis=mine", f"to={tmp_path / 'shell.png'}"])
    assert capsys.readouterr().out == f"Drawn to {tmp_path / 'shell.png'}\n"
    expected = save(figure(recorded(tracker.folder), "0", [0, 2], analysis="mine"), tmp_path / "here.png")
    assert expected.read_bytes() == (tmp_path / "shell.png").read_bytes()
    with pytest.raises(SystemExit, match=r"no sample maps of layer '0' by the analysis 'samples'; there are, by analysis, those of \{'mine'"):
        main([f"run={tracker.folder}", "what=samples", "layer=0", f"to={tmp_path / 'shell.png'}"])
