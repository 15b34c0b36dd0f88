"""The published studies show what they are said to show, and the commands of their page are ones that exist."""

from __future__ import annotations

import csv
import itertools
import re
import shlex
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from PIL import Image

from netlapse.analysis.nap import contrast
from netlapse.cli import run_training
from netlapse.recording import Recording
from netlapse.tracking.folder import read
from netlapse.types import Float64

ROOT = Path(__file__).parent.parent
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(), re.DOTALL) for line in block.splitlines()]
TRAININGS = [line for line in COMMANDS if line.startswith("./run train")]
EPOCHS = 10


def composed(words: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("netlapse.conf", version_base="1.3"):
        return compose("train", overrides=words)


@cache
def studied(*words: str) -> Recording:
    """What the training with these words records at its last epoch, as in the study but for the measures of the layout."""
    folder = mkdtemp()
    last = ["schedule=at", "schedule.steps=[${trainer.max_epochs}]", "analyses.topomap.quality=false", "checkpoint=none"]
    run_training(composed([*words, *last, "strict=true", "trainer.progress=false", "tracker=folder", f"tracker.folder={folder}"]))
    return read(Path(folder))


def profiles(recording: Recording, step: int = EPOCHS, layer: str = "relu1") -> tuple[list[str], list[int], Float64]:
    arrays = recording.findings["nap"][step].arrays
    return arrays["groups"].tolist(), arrays["counts"].tolist(), np.asarray(arrays[f"profile/{layer}"], np.float64)


def alike(profile: Float64) -> dict[tuple[int, int], float]:
    """The correlation of the contrasts of each two classes."""
    found = np.corrcoef(contrast(profile))
    return {pair: float(found[pair]) for pair in itertools.combinations(range(len(profile)), 2)}


def test_wrong_labels_make_two_classes_the_most_alike_of_all() -> None:
    """90 % of 0 as 1: nearest to the profile of what is called 1 is that of 0, which with right labels is the farthest."""
    _, counts, wrong = profiles(studied("experiment=label_errors", f"trainer.max_epochs={EPOCHS}"))
    assert counts[0] == 30  # what is left of the 300 inputs of class 0
    _, _, right = profiles(studied("experiment=label_errors", "data.share=0", f"trainer.max_epochs={EPOCHS}"))
    assert max(alike(wrong), key=alike(wrong).__getitem__) == (0, 1)
    assert alike(wrong)[0, 1] > 0.5
    assert alike(right)[0, 1] < 0
    assert np.linalg.norm(right - right[1], axis=1).argmax() == 0
    assert np.linalg.norm(wrong - wrong[1], axis=1).argsort()[1] == 0  # after 1 itself


def test_what_was_learnt_from_wrong_labels_is_the_largest_cell_off_the_diagonal_and_no_mistake_of_the_layer() -> None:
    """Of the network's own mistakes each is as few inputs, and looks in the layer like what it is taken for; that of the labels does not."""
    names, counts, profile = profiles(studied("experiment=training_confusion", f"trainer.max_epochs={EPOCHS}"))
    matrix = np.array(counts).reshape(10, 10)
    assert matrix[0, 1] >= 0.9 * matrix[0].sum()
    others = matrix * (1 - np.eye(10, dtype=int))
    others[0, 1] = 0
    assert matrix[0, 1] > 5 * others.max()
    centred = profile - np.mean([profile[names.index(f"{k} as {k}")] for k in range(1, 10)], axis=0)

    def cosine(true: int, predicted: int) -> float:
        """Of what is taken for a class, and of the class itself."""
        one, other = centred[names.index(f"{true} as {predicted}")], centred[names.index(f"{predicted} as {predicted}")]
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    own = [cosine(int(i), int(j)) for i, j in zip(*np.nonzero(others >= 5)) if j != 0]
    assert len(own) >= 5
    assert cosine(0, 1) < min(own)


def test_what_is_wrong_because_of_its_labels_differs_least_from_what_is_right() -> None:
    """Half of 0 as 1: which of them are taken for 1 is chance, so the contrast of outcome is weak; own mistakes have their reasons in the inputs."""
    recording = studied("experiment=training_errors", f"trainer.max_epochs={EPOCHS}")
    names, counts, _ = profiles(recording)
    wrong = [counts[names.index(f"{k} wrong")] for k in range(10)]
    assert wrong[0] > 2 * max(wrong[1:])
    found = recording.findings["topomap"][EPOCHS].arrays
    assert found["rows"].tolist() == [f"{k} wrong - {k} correct" for k in range(10)]
    strength = np.linalg.norm(np.asarray(found["contrast/relu1"], np.float64), axis=1)
    assert strength[0] < 0.5 * strength[1:].min()


def test_the_maps_of_intersections_show_a_bias_that_was_planted(tmp_path: Path) -> None:
    """Gender is which half is bright; of one race all images are dark: its groups, of both genders, differ most from the mean."""
    rng = np.random.default_rng(0)
    races, genders, header = ("Black", "Indian", "White"), ("Female", "Male"), ("file", "age", "gender", "race", "service_test")
    for part, each in (("train", 12), ("val", 5)):
        rows = []
        (tmp_path / part).mkdir()
        for number, (race, gender) in enumerate(itertools.product(races, genders)):
            for i in range(each + number * (part == "val")):
                pixels = rng.integers(100, 140, (8, 8, 3)) + 20 * np.repeat(np.arange(8) // 4 == genders.index(gender), 24).reshape(8, 8, 3)
                name = f"{part}/{number}_{i}.png"
                Image.fromarray((pixels * (0.2 if race == "Indian" else 1)).astype(np.uint8)).save(tmp_path / name)
                rows.append((name, "20-29", gender, race, "True"))
        with (tmp_path / f"fairface_label_{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    words = ["model=mlp_tiny", "data.size=[8,8]", "analyses.topomap.min_inputs=6", "trainer.max_epochs=3", "trainer.batch_size=8"]
    recording = studied("experiment=attribute_bias", f"data.root={tmp_path}", *words)
    names, counts, profile = profiles(recording, 3)
    assert names == [f"{race} / {gender}" for race in races for gender in genders]
    assert counts == [5, 6, 7, 8, 9, 10]
    assert recording.manifest["class_names"] == ["Female", "Male"]
    shown = np.asarray(recording.findings["topomap"][3].arrays["contrast/relu1"], np.float64)
    assert np.isnan(shown[0]).all()  # of 5 inputs, which is fewer than 6
    strength = np.linalg.norm(contrast(profile), axis=1)
    assert set(np.argsort(strength)[-2:].tolist()) == {names.index("Indian / Female"), names.index("Indian / Male")}


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", TRAININGS)
def test_every_training_of_the_page_composes_whatever_its_sweep_is_at(command: str) -> None:
    words = [word for word in shlex.split(command.replace("$FACES", "/faces"))[2:] if word != "-m"]
    parsed = OverridesParser.create().parse_overrides(words)
    choices = [
        [f"{one.get_key_element()}={value}" for value in itertools.islice(one.sweep_string_iterator(), 12)]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in parsed
    ]
    assert ("-m" in command.split()) == any(one.is_sweep_override() for one in parsed)
    for number in range(max(map(len, choices))):
        cfg = composed([choice[min(number, len(choice) - 1)] for choice in choices])
        assert cfg.name
        assert cfg.analyses.topomap.layout == cfg.layout


def test_the_docs_tell_of_every_study() -> None:
    told = {match for page in (ROOT / "docs").glob("*.md") for match in re.findall(r"/run train [^\n`]*experiment=(\w+)", page.read_text())}
    assert told | {"early_training", "right_and_wrong", "resnet"} == {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
