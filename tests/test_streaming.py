"""Laws of what units respond to most in a folder of images, whoever stops that whenever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import netlapse
from netlapse.analysis.receptive_field import fields_of, top_inputs
from netlapse.analysis.streaming import Asked, Seen, note, stream, wanting
from netlapse.analysis.top_images import Fields, _thumbnail, as_findings
from netlapse.backends.torch import TorchNetwork
from netlapse.cli import run_training
from netlapse.data.stream import Batch, Look, batches, listing
from netlapse.tracking.folder import packed, read
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings
from tests.test_conf import ROOT, composed
from tests.test_reanalysis import TRAINED, reanalysed

LAYERS = ("0", "1", "4", "6")


def small(seed: int = 0) -> TorchNetwork:
    torch.manual_seed(seed)
    return TorchNetwork(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, 4))
    )


def photos(root: Path, n: int = 50, side: int = 10) -> Path:
    """Noise of random size and mean in two folders, and three files that are no images."""
    random = np.random.default_rng(0)
    for i in range(n):
        path = root / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (side + i % 4, side + i % 3)
        Image.fromarray(np.clip(random.normal(20 + 4 * (i % 50), 40, shape), 0, 255).astype(np.uint8)).save(path)
    for name in ("a/001.png", "b/020.png", "b/text.png"):
        (root / name).write_text("no image")
    return root


def asked_of(root: Path, **options: object) -> Asked:
    look = Look((10, 10, 1), **{key: options.pop(key) for key in ("fit", "mean", "deviation") if key in options})  # type: ignore[arg-type]
    return Asked(listing(root), look, **{"layers": LAYERS, "k": 6, "batch_size": 4, **options})  # type: ignore[arg-type]


def assert_same_seen(one: Seen, other: Seen) -> None:
    assert (one.stop, dict(one.unread)) == (other.stop, dict(other.unread))
    assert one.top is not None
    assert other.top is not None
    for part in ("values", "inputs", "positions"):
        mine, theirs = getattr(one.top, part), getattr(other.top, part)
        assert list(mine) == list(theirs)
        for layer in mine:
            np.testing.assert_array_equal(mine[layer], theirs[layer], strict=True)


class Cut(BaseException):
    """What stops a pass."""


# ---- the pass ----------------------------------------------------------------------------------------------------------------


def test_streamed_is_what_all_images_at_once_give(tmp_path: Path) -> None:
    asked = asked_of(photos(tmp_path / "photos"))
    seen = stream(small(), asked, tmp_path / "state.npz")
    (whole,) = batches(asked.images, asked.shown, batch_size=1000)
    expected = top_inputs(small(), [(whole.indices, whole.inputs)], LAYERS, 6)
    assert seen.top is not None
    assert (seen.stop, seen.unread) == (len(asked.images), whole.unread)
    assert len(seen.unread) == 3
    for layer in LAYERS:
        np.testing.assert_array_equal(seen.top.inputs[layer], expected.inputs[layer])
        np.testing.assert_array_equal(seen.top.positions[layer], expected.positions[layer])
        np.testing.assert_allclose(seen.top.values[layer], expected.values[layer], rtol=1e-5, atol=1e-7)  # batches of other sizes, in float32


@pytest.mark.parametrize("save_every", [1, 10])
def test_a_pass_cut_off_anywhere_is_gone_on_with_and_ends_the_same_to_the_last_bit(tmp_path: Path, save_every: int) -> None:
    asked = asked_of(photos(tmp_path / "photos", 30))
    whole = stream(small(), asked, tmp_path / "whole.npz")
    for at in range(0, 32, 4):
        state, shown = tmp_path / f"{at}.npz", []

        def cut(batch: Batch | Seen, at: int = at) -> None:
            if batch.stop > at:
                raise Cut

        with pytest.raises(Cut):
            stream(small(), asked, state, save_every=save_every, progress=cut)
        found = stream(small(), asked, state, save_every=save_every, progress=shown.append)
        assert_same_seen(found, whole)
        resumed, *rest = shown
        assert isinstance(resumed, Seen)
        assert resumed.stop == (at + 4 if save_every == 1 else (at + 4) // 12 * 12)  # of the batch whose showing was told of, or the 12th image
        assert [batch.start for batch in rest] == list(range(resumed.stop, len(asked.images), 4))
    again: list[Batch | Seen] = []
    assert_same_seen(stream(small(), asked, tmp_path / "whole.npz", progress=again.append), whole)  # nothing is shown twice
    assert len(again) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5}, "k 6 and not 5"),
        ({"by": "mean"}, "by maximum and not mean"),
        ({"layers": ("0", "1")}, r"layers \['0', '1', '4', '6'\] and not \['0', '1'\]"),
        ({"batch_size": 8}, "batch_size 4 and not 8"),
        ({"fit": "crop"}, "fit stretch and not crop"),
        ({"mean": (0.5,)}, r"mean \[\] and not \[0.5\]"),
        ({"deviation": (0.5,)}, r"deviation \[\] and not \[0.5\]"),
        ({"weights": "other"}, "network one and not other"),
        ({"file": True}, "images 33 and not 34, sha256 of the images' paths and sizes"),
        ({"damaged": True}, "cannot be read"),
    ],
)
def test_a_state_of_something_else_is_not_gone_on_with(options: dict[str, object], message: str, tmp_path: Path) -> None:
    root, state = photos(tmp_path / "photos", 30), tmp_path / "state.npz"
    stream(small(), asked_of(root), state, weights="one")
    weights = str(options.pop("weights", "one"))
    if options.pop("file", False):
        shutil.copy(root / "a" / "000.png", root / "a" / "another.png")
    if options.pop("damaged", False):
        state.write_bytes(state.read_bytes()[:100])
    asked = asked_of(root, **options)
    with pytest.raises(ValueError, match=rf"is of something else \(.*{message}.*force=true"):
        stream(small(), asked, state, weights=weights)
    fresh = stream(small(), asked, tmp_path / "fresh.npz", weights=weights)
    assert_same_seen(stream(small(), asked, state, weights=weights, anew=True), fresh)


def test_where_no_image_can_be_read_there_is_nothing_to_find(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 images below .* can be read; the first: a.png cannot be read as an image"):
        stream(small(), asked_of(tmp_path), tmp_path / "state.npz")
    with pytest.raises(ValueError, match="every 0 images"):
        stream(small(), asked_of(tmp_path), tmp_path / "state.npz", save_every=0)


# ---- what is recorded --------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(tmp_path: Path) -> tuple[TorchNetwork, Asked, Seen]:
    network, asked = small(), asked_of(photos(tmp_path / "photos"))
    with torch.no_grad():
        network.module[0].bias[:] = 2
        network.module[0].bias[2] = -1e3  # of "1", unit 2 never fires and the others always do
    return network, asked, stream(network, asked, tmp_path / "state.npz")


def test_each_top_image_is_recorded_by_its_path_with_its_value_and_place(seen: tuple[TorchNetwork, Asked, Seen]) -> None:
    network, asked, what = seen
    found = as_findings(network, asked, what, 3)
    ids = found.arrays["ids"].tolist()
    assert [asked.images.names[i] for i in found.arrays["indices"].tolist()] == ids
    assert len(set(ids)) == len(ids)
    assert {asked.images.names[i] for i in what.unread} == set(found.arrays["unread"].tolist()) == {"a/001.png", "b/020.png", "b/text.png"}
    for layer in ("1", "4"):
        for u, row in enumerate(found.arrays[f"top/{layer}"].tolist()):
            for rank, place in enumerate(row):
                image = asked.shown.scaled(asked.shown.read(asked.images.root / ids[place])[None])
                activation = network.activations(image, [layer])[layer][0, ..., u]
                value = float(found.arrays[f"top_values/{layer}"][u, rank])  # type: ignore[index, arg-type]
                assert activation.max() == pytest.approx(value, rel=1e-5, abs=1e-6)
                assert activation[tuple(found.arrays[f"top_positions/{layer}"][u, rank])] == activation.max()  # type: ignore[index, arg-type]
    assert found.scalars["top_images/images"] == 50
    assert found.scalars["top_images/unread"] == 3
    assert found.scalars["top_images/alike/1"] == 1 / 6  # the one that never fires
    assert found.scalars["top_images/alike/0"] == 0


def test_thumbnails_are_the_images_as_the_network_sees_them_within_a_budget(seen: tuple[TorchNetwork, Asked, Seen]) -> None:
    network, asked, what = seen
    found = as_findings(network, asked, what, 3, thumbnails=64)
    expected = [asked.shown.read(asked.images.root / name) for name in found.arrays["ids"].tolist()]
    np.testing.assert_array_equal(found.arrays["thumbnails"], expected, strict=True)
    assert as_findings(network, asked, what, 3, thumbnails=5).arrays["thumbnails"].shape[1:] == (5, 5, 1)
    assert "thumbnails" not in as_findings(network, asked, what, 3, thumbnails=0).arrays
    assert _thumbnail((224, 224, 3), 64, 8000) == (64, 64, 3)
    assert _thumbnail((100, 224, 1), 64, 8) == (28, 64, 1)
    for n in (8_200, 10_000, 1_000_000):
        height, width, channels = _thumbnail((224, 224, 3), 64, n)
        assert 0.85 * 10**8 < n * height * width * channels <= 10**8 or n == 1_000_000


def test_units_are_drawn_with_their_images_unless_which_these_are_says_nothing(seen: tuple[TorchNetwork, Asked, Seen]) -> None:
    network, asked, what = seen
    found = as_findings(network, asked, what, 3, units=6, name="holidays")
    assert set(found.images) == {f"holidays/{layer}" for layer in LAYERS}
    assert {key.partition("/")[0] for key in found.scalars} == {"holidays"}
    picture = found.images["holidays/1"]
    inside = picture[:, 160:]  # beside what is said of units
    assert (inside == (255, 149, 0)).all(axis=2).any()  # outlined: "1" sees 3 x 3 pixels
    assert not (found.images["holidays/6"] == (255, 149, 0)).all(axis=2).any()  # a dense layer sees everything
    through = (inside[:, 40] != 255).any(axis=1)  # the first image of every row, which is 90 pixels high and has its lightest pixel white
    ends = np.flatnonzero(np.diff(np.concatenate([[False], through, [False]]).astype(int)))
    assert (np.diff(ends)[::2] > 60).sum() == 5  # of six units


def test_fields_are_those_of_the_drawn_units_over_their_top_images(seen: tuple[TorchNetwork, Asked, Seen]) -> None:
    network, asked, what = seen
    assert what.top is not None
    found = as_findings(network, asked, what, 3, units=3, fields=Fields(occluder=3, stride=2, fill=0.0))
    (whole,) = batches(asked.images, asked.shown, batch_size=1000)
    everything = np.zeros((len(asked.images), 10, 10, 1), np.float32)
    everything[whole.indices] = whole.inputs
    for layer, units in (("1", [0, 2, 5]), ("4", [0, 2, 4])):
        top = tuple(part[layer][units] for part in (what.top.values, what.top.inputs, what.top.positions))
        expected = fields_of(network, everything, layer, np.array(units), top, occluder=3, stride=2, fill=0.0, batch_size=4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.arrays[f"units/{layer}"], units)
        np.testing.assert_array_equal(found.arrays[f"fields/{layer}"], expected.fields)
        assert np.isfinite(found.scalars[f"top_images/diameter/{layer}"])
    assert "fields/6" not in found.arrays  # dense
    assert "top_images/6" in found.images
    with pytest.raises(ValueError, match="the occluder is 11 pixels wide; expected 1 to 10"):
        as_findings(network, asked, what, 3, fields=Fields(occluder=11))


def test_what_the_record_has_is_not_asked_again_and_not_mixed_with_something_else() -> None:
    tracker = MemoryTracker()
    assert wanting(tracker, "photos", {"k": 3}, [2, 0]) == [0, 2]
    note(tracker, "photos")
    tracker.log("photos", 0, Findings())
    assert wanting(tracker, "photos", {"k": 3}, [0, 2]) == [0, 2]  # killed before it was noted of what
    note(tracker, "photos", 0, {"k": 3})
    assert wanting(tracker, "photos", {"k": 3}, [0, 2]) == [2]
    assert wanting(tracker, "photos", {"k": 3}, [0, 2], force=True) == [0, 2]
    with pytest.raises(ValueError, match=r"'photos' is in the record at steps \[0\], and is of something else \(at step 0 k 3 and not 4\)"):
        wanting(tracker, "photos", {"k": 4}, [2])
    with pytest.raises(ValueError, match=r"replace all of them with force=true"):
        wanting(tracker, "photos", {"k": 4}, [2], force=True)
    assert wanting(tracker, "photos", {"k": 4}, [0, 2], force=True) == [0, 2]
    tracker.log("nap", 0, Findings())
    with pytest.raises(ValueError, match="an analysis 'nap' that is not of images in a folder; give this one another name"):
        wanting(tracker, "nap", {"k": 4}, [0])


# ---- the program -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = tmp_path_factory.mktemp("trained") / "record"
    run_training(composed([*TRAINED, "trainer.max_epochs=1", "analyses=profiles", "tracker=folder", f"tracker.folder={record}"]))
    return record


@pytest.fixture
def record(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "record"))


def program(*overrides: str, home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"NETLAPSE_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "netlapse.analysis", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def test_killed_and_called_again_the_program_finds_what_it_finds_in_one_go(record: Path, tmp_path: Path, own_place: Path) -> None:
    root, other = photos(tmp_path / "photos", 400), Path(shutil.copytree(record, tmp_path / "other"))
    options = [f"images.folder={root}", "step=1", "images.save_every=8", "+callback.batch_size=4"]
    with program(f"run={record}", *options, home=own_place) as killed:
        assert killed.stderr is not None
        told = []
        for line in killed.stderr:
            told.append(line)
            if line.startswith("step 1: "):
                killed.send_signal(signal.SIGKILL)
                break
    assert killed.returncode == -signal.SIGKILL, told
    assert "top_images" not in read(record).findings
    (state,) = (own_place / "streams").rglob("*.npz")
    with program(f"run={record}", *options, home=own_place) as again:
        out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "step 1: going on after " in err
    assert "Found top_images among 400 images at 1 checkpoint; 3 could not be read, see top_images_unread.json." in out
    assert not state.exists()
    assert reanalysed(f"run={other}", *options)
    one, two = (read(each).findings["top_images"][1] for each in (record, other))
    assert packed(one) == packed(two)
    for layer in ("relu1", "relu3"):
        pictures = [(each / "images" / "top_images" / layer / "step_00000001.png").read_bytes() for each in (record, other)]
        assert pictures[0] == pictures[1]


def test_jobs_side_by_side_find_what_one_finds(record: Path, tmp_path: Path, own_place: Path) -> None:
    root, other = photos(tmp_path / "photos"), Path(shutil.copytree(record, tmp_path / "other"))
    with program("-m", f"run={record}", f"images.folder={root}", "step=1,0", home=own_place) as jobs:
        out, err = jobs.communicate(timeout=300)
    assert jobs.returncode == 0, out + err
    assert reanalysed(f"run={other}", f"images.folder={root}")
    one, two = (read(each).findings["top_images"] for each in (record, other))
    assert sorted(one) == sorted(two) == [0, 1]
    for step in one:
        assert packed(one[step]) == packed(two[step])
    assert not list((own_place / "streams").rglob("*.npz"))


@pytest.fixture
def run_id(trained: Path) -> Iterator[str]:
    from netlapse.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker()
    tracker.start({key: value for key, value in read(trained).manifest.items() if key not in ("findings", "failed", "run_id")})
    for name in ("config.yaml", "probe.npz"):
        tracker.document(name, (trained / name).read_bytes())
    tracker.finish()
    return tracker.run_id


def test_an_mlflow_run_holds_it_with_named_axes_and_once(run_id: str, tmp_path: Path, own_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos")
    assert reanalysed(f"run={run_id}", f"images.folder={root}", "images.name=holidays", "images.k=4")
    found = netlapse.load(run_id)
    for name, axes in {
        "top/relu1": ("step", "unit", "rank"),
        "top_values/relu1": ("step", "unit", "rank"),
        "top_positions/relu1": ("step", "unit", "rank", "coordinate"),
        "thumbnails": ("step", "image", "row", "column", "channel"),
        "ids": ("step", "image"),
        "unread": ("step", "unread"),
    }.items():
        assert found.array("holidays", name).axes == axes
    assert found.array("holidays", "top/relu1").values.shape[2] == 4
    assert sorted(found.findings["holidays"]) == [0, 1]

    def artifacts() -> set[str]:
        return {str(path) for path in (own_place / "artifacts").rglob("*") if path.is_file()}

    import sqlite3

    def points() -> int:
        with closing(sqlite3.connect(own_place / "mlflow.db")) as database:
            return int(database.execute("select count(*) from metrics").fetchone()[0])

    before = artifacts(), points()
    assert any("holidays~relu1+step+1" in name for name in before[0])
    assert any(name.endswith("holidays_unread.json") for name in before[0])
    capsys.readouterr()
    assert reanalysed(f"run={run_id}", f"images.folder={root}", "images.name=holidays", "images.k=4")
    assert "Nothing was missing of holidays at 2 checkpoints" in capsys.readouterr().out
    assert (artifacts(), points()) == before
    with pytest.raises(ValueError, match="k 4 and not 5"):
        reanalysed(f"run={run_id}", f"images.folder={root}", "images.name=holidays", "images.k=5")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images.folder=/no/such/place"], "no folder of images at /no/such/place"),
        (["images.size=12"], r"images.size is 12; expected \[height, width\]"),
        (["images.fit=squeeze"], "allowed are 'stretch' and 'crop'"),
        (["images.mean=[0.1,0.2,0.3]"], "expected 1 numbers, one per channel"),
        (["images.name=nap"], "an analysis 'nap' that is not of images"),
        (["images.name=../up"], r"an analysis cannot be named '../up'"),
        (["images.k=0"], "k=0"),
        (["images.units=0"], "drawn of 0 units"),
        (["images.threads=0"], "by 0 threads"),
        (["images.fields=true", "images.occluder=99"], "the occluder is 99 pixels wide"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_recorded(overrides: list[str], message: str, record: Path, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 8)
    before = sorted(path for path in record.rglob("*"))
    with pytest.raises(ValueError if "place" not in message else FileNotFoundError, match=message):
        reanalysed(f"run={record}", f"images.folder={root}", *overrides)
    assert sorted(path for path in record.rglob("*")) == before
