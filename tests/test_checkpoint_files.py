"""Which files of a folder are checkpoints, and of which step each is."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from netlapse.schedule import Unit
from netlapse.tracking.checkpoints import Checkpoints, find, sha256


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "epoch", "step"),
    [
        ("step_00000012.ckpt", 12, 12),  # ours, whatever the record counts
        ("step_00000000.keras", 0, 0),
        ("epoch=3-step=400.ckpt", 4, 400),  # Lightning: the epoch of index 3 is over
        ("epoch=3-step=400-v2.ckpt", 4, 400),
        ("best-epoch=03-val_loss=0.25.ckpt", 4, None),
        ("step=400.ckpt", None, 400),
        ("timestep=7.pt", 7, 7),  # ends in the word, and is another
        ("epoch_3/checkpoint.pth", 4, None),  # MLflow, in both frameworks
        ("epoch_3/checkpoint.weights.h5", 4, None),
        ("epoch_3/checkpoint.weights.pth", 4, None),
        ("global_step_40/checkpoint.h5", None, 40),
        ("model_05.keras", 5, 5),
        ("checkpoint-500.pt", 500, 500),
        ("resnet18_epoch7.pth", 7, 7),
        ("weights.03-0.25.h5", 3, 3),  # a loss is no step
        ("weights.03-0.25.weights.h5", 3, 3),
        ("checkpoint-500/model.pt", 500, 500),
        ("run_2/model_05.pt", 5, 5),
        ("last.ckpt", None, None),
        ("last-v1.ckpt", None, None),
        ("resnet18/best.pt", None, None),
        ("model.pt", None, None),
    ],
)
def test_the_step_is_read_from_the_name(tmp_path: Path, name: str, epoch: int | None, step: int | None) -> None:
    units: dict[Unit, int | None] = {"epoch": epoch, "step": step}
    for unit, expected in units.items():
        if expected is None:
            with pytest.raises(FileNotFoundError, match=r"no checkpoints with a step in .*none of their names tells an? (epoch|step); name the"):
                find(folder_of(tmp_path, name), unit=unit)
        else:
            assert find(folder_of(tmp_path, name), unit=unit) == {expected: tmp_path / name}


def test_the_steps_ascend_as_numbers_do_whatever_the_names_order_is(tmp_path: Path) -> None:
    folder_of(tmp_path, "m_10.pt", "m_9.pt", "m_100.pt")
    assert list(find(tmp_path)) == [9, 10, 100]


def test_the_folders_own_name_is_no_step_and_neither_is_what_lies_deeper(tmp_path: Path) -> None:
    folder_of(tmp_path / "run_7", "model.pt", "a/b/model_3.pt", "model_1.pt")
    assert find(tmp_path / "run_7") == {1: tmp_path / "run_7" / "model_1.pt"}


def test_other_files_and_half_written_ones_are_no_checkpoints(tmp_path: Path) -> None:
    folder_of(tmp_path, "m_1.pt", "m_2.txt", ".partial-m_3.pt", ".trash/m_4.pt", "m_5.pt/notes.txt")
    assert list(find(tmp_path)) == [1]


def test_files_without_a_step_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of(tmp_path, "m_1.pt", "last.ckpt", "best.pt")
    with caplog.at_level(logging.WARNING):
        assert list(find(tmp_path)) == [1]
    assert caplog.messages == ["netlapse: left out, as their names tell no epoch: best.pt, last.ckpt"]


def test_two_files_of_one_step_are_refused_and_the_pattern_that_is_named_tells_them_apart(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/m_1.pt", "b/m_1.pt", "b/m_2.pt")
    with pytest.raises(ValueError, match=r"two checkpoints of epoch 1 in .*: a/m_1\.pt and b/m_1\.pt; .*pattern="):
        find(tmp_path)
    assert find(tmp_path, pattern=r"^b/m_(\d+)\.pt$") == {1: tmp_path / "b/m_1.pt", 2: tmp_path / "b/m_2.pt"}


def test_a_pattern_overrides_every_other_reading(tmp_path: Path) -> None:
    folder_of(tmp_path, "epoch=3-step=400.ckpt", "epoch=4-step=500.ckpt")
    assert list(find(tmp_path, pattern=r"step=(\d)")) == [4, 5]
    with pytest.raises(FileNotFoundError, match=r"it holds epoch=3-step=400\.ckpt, .*none matches 'x\(\\\\d\+\)'"):
        find(tmp_path, pattern=r"x(\d+)")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("(", "no regular expression"), (r"\d+", "has 0 groups; expected one"), (r"(a)(\d)", "has 2 groups"), ("(m)", r"finds the step 'm' in m_1\.pt")],
)
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, pattern: str, why: str) -> None:
    folder_of(tmp_path, "m_1.pt")
    with pytest.raises(ValueError, match=why):
        find(tmp_path, pattern=pattern)


def test_where_there_is_nothing_it_is_said_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder of checkpoints at .*none"):
        find(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no checkpoints in .*expected .*\.ckpt.* and it holds nothing"):
        find(tmp_path)
    folder_of(tmp_path, *(f"{i}.txt" for i in range(10)))
    with pytest.raises(FileNotFoundError, match=r"it holds 0\.txt, .*7\.txt and 2 more"):
        find(tmp_path)


def test_what_is_saved_is_found_at_its_step_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ".ckpt")
    for step in (0, 12):
        checkpoints.save(step, lambda path: path.write_bytes(b"weights") and None)
    assert {str(step): str(path) for step, path in find(tmp_path).items()} == {step: saved["path"] for step, saved in checkpoints.saved.items()}
    assert checkpoints.saved["12"]["sha256"] == sha256(checkpoints.path(12)) == hashlib.sha256(b"weights").hexdigest()
