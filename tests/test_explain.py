"""Law: what `./run explain` shows of an input is what the analysis saliency finds of it, at every checkpoint, in both frameworks."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import netlapse.explain as program
from netlapse.cli import run_training
from netlapse.explain import METHODS, run_explanation, spelled
from netlapse.explanation import Explanation, asked_for, drawn
from netlapse.recompose import chosen
from netlapse.render.colours import SEQUENTIAL
from netlapse.render.explanation import SIDE, Column, explanation_grid
from netlapse.tracking.folder import FolderTracker, read
from netlapse.tracking.probes import PROBE, from_bytes
from netlapse.types import ProbeSet, UInt8
from tests.test_conf import ROOT, composed

TRAINED = (
    "data=digits",
    "model=cnn_tiny",
    "trainer.max_epochs=2",
    "trainer.batch_size=256",
    "trainer.progress=false",
    "probe.per_class=3",
    "tracker=folder",
    "strict=true",
    "analyses.saliency.panel=30",  # all of the probe
    "saliency.methods={gradient: {_target_: hydra.utils.get_method, path: netlapse.analysis.saliency.gradient},"
    " cam: {_target_: netlapse.analysis.saliency.grad_cam, _partial_: true, layer: relu1}}",
)


@pytest.fixture(scope="module", params=["torch", "keras"])
def record(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "record"
    run_training(composed([*TRAINED, f"framework={request.param}", f"tracker.folder={folder}"]))
    return folder


@pytest.fixture(scope="module")
def in_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "record"
    run_training(composed([*TRAINED, f"tracker.folder={folder}"]))
    return folder


def explanation(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Explanation:
    """What the program finds before it draws it."""
    seen: list[Explanation] = []
    monkeypatch.setattr(program, "drawn", lambda found, *rest: seen.append(found) or drawn(found, *rest))
    explained(*overrides)
    return seen[0]


def explained(*overrides: str) -> Path | None:
    words = [spelled(word) for word in overrides]
    cfg = composed(words, "explain")
    return run_explanation(cfg, chosen(cfg, words))


def probe_in(record: Path) -> ProbeSet:
    return from_bytes((record / PROBE).read_bytes())


def test_maps_predictions_and_confidence_are_those_of_the_analysis(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explanation(monkeypatch, f"run={record}", "input=17")
    live = read(record).findings["saliency"]
    assert found.steps == tuple(live) == (0, 1, 2)
    (row,) = np.flatnonzero(live[0].arrays["inputs"] == 17)
    for place, step in enumerate(found.steps):
        arrays = live[step].arrays
        assert found.predictions[place] == arrays["predictions"][row]
        assert found.classes[place] == arrays["classes"][row] == probe_in(record).labels[17]
        np.testing.assert_allclose(found.confidence[place], arrays["confidence"][row], rtol=1e-5)
        assert list(found.maps) == ["gradient", "cam"]
        for name, maps in found.maps.items():
            of_it = np.asarray(arrays[f"maps/{name}"][row], float)
            # Of one input and of thirty at once the same sums are made in another order.
            np.testing.assert_allclose(maps[place], of_it, rtol=1e-4, atol=1e-5 * max(np.abs(of_it).max(), 1e-6))
    assert np.abs(found.maps["gradient"][0] - found.maps["gradient"][2]).max() > 0  # of each checkpoint its own


def test_what_was_not_precomputed_is_asked_for_by_name(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explanation(monkeypatch, f"run={record}", "input=3", "epochs=2,0", "methods=fullgrad,grad_cam,cam", "of=5")
    assert (found.steps, list(found.maps), found.classes.tolist()) == ((0, 2), ["fullgrad", "grad_cam", "cam"], [5, 5])
    assert {maps.shape for maps in found.maps.values()} >= {(2, 8, 8)}
    other = explanation(monkeypatch, f"run={record}", "input=3", "epochs=0,2", "methods=fullgrad")
    assert other.classes.tolist() == [probe_in(record).labels[3]] * 2
    assert np.abs(other.maps["fullgrad"] - found.maps["fullgrad"]).max() > 0  # of another class, another map


def test_an_input_goes_by_its_id_too(in_torch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_in(in_torch)
    named = ProbeSet(probe.inputs, probe.labels, probe.class_names, ids=np.array([f"digit {place}" for place in range(len(probe))]))
    assert asked_for("digit 4", named).name == "input 4 (digit 4)"
    assert asked_for("4", named).label == probe.labels[4]
    np.testing.assert_array_equal(asked_for("digit 4", named).image, probe.inputs[4])


def test_an_image_file_is_made_what_the_network_sees(in_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    probe = probe_in(in_torch)
    file = tmp_path / "my digit=1, (new).png"
    pixels = np.rint(probe.inputs[6, ..., 0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    found = explanation(monkeypatch, f"run={in_torch}", f"input={file}", "epochs=1,2")
    np.testing.assert_array_equal(found.asked.image[..., 0], pixels.astype(np.float32) / 255)
    same = explanation(monkeypatch, f"run={in_torch}", "input=6", "epochs=1,2", "of=predicted")
    np.testing.assert_allclose(found.confidence, same.confidence, atol=0.02)  # but for the rounding to 255 levels
    assert found.classes.tolist() == found.predictions.tolist()  # nobody said what it is of
    assert "my digit=1, (new).png, 8 x 8 pixels: as it is, grey, values from 0 to 1" in capsys.readouterr().out
    large = tmp_path / "photo.jpg"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(large)
    assert asked_for(str(large), probe).notes == ("photo.jpg, 60 x 40 pixels: stretched to 8 x 8, grey, values from 0 to 0",)
    assert "cut and scaled" in asked_for(str(large), probe, fit="crop").notes[0]
    scaled = ProbeSet(probe.inputs * 4 - 2, probe.labels, probe.class_names)
    assert "give mean=[...] and deviation=[...]" in asked_for(str(large), scaled).notes[1]
    np.testing.assert_allclose(asked_for(str(large), scaled, mean=(0.5,), deviation=(0.25,)).image, -2)


def test_the_picture_is_written_where_told_and_kept_in_the_run(in_torch: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "it.png"
    assert explained(f"run={in_torch}", "input=17", "epochs=0,2", f"out={out}") == out
    kept = in_torch / "explained_17_epoch_0_2_gradient_cam.png"
    assert kept.read_bytes() == out.read_bytes()
    assert explained(f"run={in_torch}", "input=17", "epochs=0,2") is None
    assert kept.read_bytes() == out.read_bytes()  # the same question, the same picture
    assert explained(f"run={in_torch}", "input=17", "epochs=0,1") is None
    assert len([*in_torch.glob("explained_17_*.png")]) == 2


def test_a_run_is_otherwise_left_as_it_was(in_torch: Path) -> None:
    def files() -> dict[str, str]:
        return {str(p.relative_to(in_torch)): hashlib.sha256(p.read_bytes()).hexdigest() for p in in_torch.rglob("*") if p.is_file()}

    before = files()
    explained(f"run={in_torch}", "input=0", "epochs=1")
    assert {name: digest for name, digest in files().items() if not name.startswith("explained_0_")} == {
        name: digest for name, digest in before.items() if not name.startswith("explained_0_")
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["input=30"],
            "input is '30'; expected a place in the probe, 0 to 29, an id of one of its inputs, such as .*, or an image file: there is none",
        ),
        (["input=nothing.png"], "input is 'nothing.png'; expected a place"),
        (["input=1", "epochs=1,7"], r"epochs holds \[7\], of which there is no checkpoint; there are those of \[0, 1, 2\]"),
        (["input=1", "epochs=last"], r"epochs holds \['last'\]"),
        (["input=1", "methods=fullgrad,lime"], r"methods holds \['lime'\]; there are gradient, cam, gradient_times_input, .*, occlusion"),
        (["input=1", "of=12"], "saliency target is 12; allowed are 'label' and 'predicted', 'runner_up', and a class: 0 to 9"),
        (["input=1", "of=cat"], "saliency target is 'cat'"),
        ([], "run or input is null; name a run and an input"),
    ],
)
def test_what_there_is_not_is_said_with_what_there_is(overrides: list[str], message: str, in_torch: Path) -> None:
    with pytest.raises(ValueError, match=message):
        explained(f"run={in_torch}", *overrides)


def test_a_run_without_checkpoints_says_so(in_torch: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    tracker = FolderTracker(bare)
    tracker.start({"framework": "torch"})
    tracker.document("config.yaml", (in_torch / "config.yaml").read_text())
    tracker.document(PROBE, (in_torch / PROBE).read_bytes())
    with pytest.raises(FileNotFoundError, match="names no checkpoints and holds none; say where they are: checkpoints=<folder>"):
        explained(f"run={bare}", "input=1")
    assert explained(f"run={bare}", "input=1", f"checkpoints={in_torch / 'checkpoints'}", f"out={tmp_path / 'it.png'}") is not None


def test_a_checkpoint_that_is_not_the_one_that_was_saved_is_refused(in_torch: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(in_torch, tmp_path / "copy"))
    saved = sorted((copy / "checkpoints").iterdir())
    manifest = (copy / "manifest.json").read_text().replace(str(in_torch), str(copy))
    (copy / "manifest.json").write_text(manifest)
    shutil.copy(saved[2], saved[1])
    with pytest.raises(ValueError, match="is not the file that was saved"):
        explained(f"run={copy}", "input=1", "epochs=1")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("epochs=0,5,10", "epochs=[0,5,10]"),
        ("epochs=[0,5]", "epochs=[0,5]"),
        ("methods=fullgrad", "methods=[fullgrad]"),
        ("input=a b,(c)='d'.png", r"input='a b,(c)=\'d\'.png'"),
        ("input='a.png'", "input='a.png'"),
        ("input=17", "input='17'"),
        ("run=x", "run=x"),
        ("epochs=null", "epochs=null"),
    ],
)
def test_lists_and_names_may_be_written_as_they_are(word: str, expected: str) -> None:
    assert spelled(word) == expected


def test_every_method_that_is_offered_is_there(in_torch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explanation(monkeypatch, f"run={in_torch}", "input=2", "epochs=2", f"methods={','.join(METHODS)}")
    assert tuple(found.maps) == METHODS
    assert all(np.isfinite(maps).all() and np.abs(maps).max() > 0 for maps in found.maps.values())


def test_the_grid_shows_the_maps_and_the_image_as_they_are() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((8, 8, 3))
    rows = {name: rng.uniform(0, 6, (3, 8, 8)) for name in ("one", "other")}
    rows["other"][1] = np.nan
    grid = explanation_grid(
        image,
        "input",
        [Column(f"epoch {step}", ("said",)) for step in range(3)],
        rows,
        6.0,
        "title",
        missing={"one": [""] * 3, "other": ["zero"] * 3},
    )
    factor = SIDE // 8

    def there(tile: UInt8) -> bool:
        """Whether an enlarged tile (8, 8, 3) is on the page somewhere."""
        large = tile.repeat(factor, axis=0).repeat(factor, axis=1)
        corners = np.argwhere((grid[: -len(large) + 1, : -len(large) + 1] == large[0, 0]).all(axis=2))
        return any(np.array_equal(grid[y : y + len(large), x : x + len(large)], large) for y, x in corners)

    low, high = image.min(), image.max()
    assert there(np.rint((image - low) / (high - low) * 255).astype(np.uint8))
    for maps in rows.values():
        for one in maps:
            if np.isfinite(one).all():
                assert there(SEQUENTIAL[np.rint(one / 6 * 200).astype(int)])
    with pytest.raises(ValueError, match=r"expected \(2, 8, 8\), at least one"):
        explanation_grid(image, "", [Column("", ())] * 2, rows, 6.0, "")
    with pytest.raises(ValueError, match=r"expected \(h, w, 1 or 3\) without NaN"):
        explanation_grid(image[..., :2], "", [Column("", ())] * 3, rows, 6.0, "")


def test_the_program_runs_from_the_shell(in_torch: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "netlapse.explain",
        f"run={in_torch}",
        "input=17",
        "epochs=0,2",
        "methods=fullgrad,grad_cam",
        f"out={tmp_path / 'a b.png'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"Written to {tmp_path / 'a b.png'}" in done.stdout
    with Image.open(io.BytesIO((tmp_path / "a b.png").read_bytes())) as picture:
        assert picture.format == "PNG"
    failed = subprocess.run([*command[:4], "input=99"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 1
    assert failed.stderr.strip().startswith("netlapse: input is '99'")
    assert "Traceback" not in failed.stderr
