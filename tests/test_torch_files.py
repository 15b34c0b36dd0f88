"""Which torch files are read, what of them, and that nothing in them is run; what is put into a network and what is refused."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from netlapse.analysis import default_analyses
from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torch_files import load_weights, read_weights
from netlapse.callbacks.lightning import CheckpointCallback, ObserverCallback
from netlapse.observer import Observer
from netlapse.schedule import every_steps
from netlapse.tracking.checkpoints import find
from netlapse.tracking.memory import MemoryTracker
from netlapse.types import Findings
from tests.training import Digits, Lit, Net, probe, train


def same(a: Findings, b: Findings) -> bool:
    arrays = a.arrays.keys() == b.arrays.keys() and all(a.arrays[name].tobytes() == b.arrays[name].tobytes() for name in a.arrays)
    images = a.images.keys() == b.images.keys() and all((a.images[key] == b.images[key]).all() for key in a.images)
    return arrays and images and str(dict(a.scalars)) == str(dict(b.scalars))


def observed(network: TorchNetwork, steps: dict[int, Path]) -> dict[str, dict[int, Findings]]:
    tracker = MemoryTracker()
    observer = Observer(probe(), default_analyses(probe()), tracker, strict=True)
    observer.start(network)
    for step, path in steps.items():
        load_weights(network, path)
        observer.observe(network, step)
    return tracker.findings


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def equal(module: nn.Module, other: nn.Module) -> bool:
    pairs = zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


# ---- reading --------------------------------------------------------------------------------------------------------


def test_what_is_read_is_the_state_dict_bit_for_bit_whatever_it_lies_in(tmp_path: Path) -> None:
    state = net().state_dict()
    files: dict[str, object] = {"plain": state, "model": {"model": state, "optimizer": {"state": {}}}, "named": {"model_state_dict": state}}
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pt")
        torch.save(content, tmp_path / f"{name}-old.pt", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        weights = read_weights(path)
        assert list(weights.arrays) == list(state)
        assert weights.trainable is None
        for key, value in state.items():
            assert weights.arrays[key].dtype == value.numpy().dtype
            np.testing.assert_array_equal(weights.arrays[key], value.numpy())


def test_types_that_numpy_has_not_keep_their_values(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -3.0, 0.0, 2.0**100], dtype=torch.bfloat16)
    small = torch.tensor([1.5, -3.0, 0.0, 448.0])
    state = {
        "bfloat16": values,
        "float8": small.to(torch.float8_e4m3fn),
        "sparse": small.to_sparse(),
        "conjugate": torch.complex(small, small).conj(),
        "parameter": nn.Parameter(small),
    }
    torch.save(state, tmp_path / "m.pt")
    arrays = read_weights(tmp_path / "m.pt").arrays
    np.testing.assert_array_equal(arrays["bfloat16"], np.array([1.5, -3.0, 0.0, 2.0**100], np.float32), strict=True)
    for name in ("float8", "sparse", "parameter"):
        np.testing.assert_array_equal(arrays[name], np.array([1.5, -3.0, 0.0, 448.0], np.float32), strict=True)
    np.testing.assert_array_equal(arrays["conjugate"], small.numpy() - 1j * small.numpy())
    torch.save({"a": torch.empty(3, device="meta")}, tmp_path / "meta.pt")
    with pytest.raises(ValueError, match=r"meta\.pt: entry 'a', torch\.float32 on meta, has no values to read"):
        read_weights(tmp_path / "meta.pt")


def fit(*callbacks: pl.Callback) -> Lit:
    pl.seed_everything(0, verbose=False)
    module = Lit()
    module.save_hyperparameters({"rate": 0.1, "layers": [3, 4]})
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(max_epochs=2, callbacks=list(callbacks), **options)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader(Digits(), 8, shuffle=True), DataLoader(Digits(12), 6))
    return module


def test_the_position_is_of_the_weights_and_not_of_lightnings_clock(tmp_path: Path) -> None:
    """6 batches an epoch. Lightning's own "epoch" is 0 in the files of step 0 and of step 1, and 2 in one saved after the end."""

    class Last(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    fit(
        CheckpointCallback(tmp_path / "epochs"),
        CheckpointCallback(tmp_path / "steps", every_steps(4)),
        ModelCheckpoint(tmp_path / "lightning", save_top_k=-1),
        Last(),
    )
    epochs, steps, lightning = (find(tmp_path / name, unit=unit) for name, unit in (("epochs", "epoch"), ("steps", "step"), ("lightning", "epoch")))
    positions = {path: dict(read_weights(path).position) for path in [*epochs.values(), *steps.values(), *lightning.values(), tmp_path / "end.ckpt"]}
    assert [positions[path] for path in epochs.values()] == [{"epoch": 0, "step": 0}, {"epoch": 1, "step": 6}, {"epoch": 2, "step": 12}]
    assert {step: positions[path] for step, path in steps.items()} == {0: {"epoch": 0, "step": 0}, 4: {"step": 4}, 8: {"step": 8}, 12: {"step": 12}}
    assert {step: positions[path] for step, path in lightning.items()} == {1: {"epoch": 1, "step": 6}, 2: {"epoch": 2, "step": 12}}
    assert positions[tmp_path / "end.ckpt"] == {"epoch": 2, "step": 12}


def test_the_position_of_other_files_is_what_they_say(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    torch.save({"epoch": 3, "step": 40, "model": state}, tmp_path / "m.pt")
    assert read_weights(tmp_path / "m.pt").position == {"epoch": 3, "step": 40}
    torch.save({"epoch": "three", "global_step": True, "model": state}, tmp_path / "m.pt")
    assert read_weights(tmp_path / "m.pt").position == {}


# ---- what is not read -----------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes the file it names."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mkdir, (str(self.proof),)  # type: ignore[return-value]


def _zip(content: object, path: Path) -> None:
    torch.save(content, path)


def _old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [_zip, _old])
@pytest.mark.parametrize("read", [read_weights, lambda path: load_weights(TorchNetwork(nn.Linear(2, 2)), path)], ids=["read", "load"])
def test_code_in_a_file_does_not_run(tmp_path: Path, save: Callable[[object, Path], None], read: Callable[[Path], object]) -> None:
    proof = tmp_path / "it ran"
    save({"state_dict": nn.Linear(2, 2).state_dict(), "hyper_parameters": Bomb(proof)}, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"m\.ckpt holds, beside weights, what only code of posix\.mkdir.*nothing was read.*state_dict\(\)"):
        read(tmp_path / "m.ckpt")
    assert not proof.exists()
    torch.load(tmp_path / "m.ckpt", weights_only=False)
    assert proof.exists()  # it would have


def test_code_in_a_bare_pickle_does_not_run(tmp_path: Path) -> None:
    for protocol in (2, 4):
        (tmp_path / "m.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "it ran"), protocol))
        with pytest.raises(ValueError, match=r"m\.pt"):
            read_weights(tmp_path / "m.pt")
    assert not (tmp_path / "it ran").exists()


def test_what_the_error_advises_works(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    paths = [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")]
    torch.save({"state_dict": state, "hyper_parameters": {"where": paths}}, tmp_path / "m.ckpt")
    both = r"pathlib\.PurePosixPath, pathlib\.PureWindowsPath"
    with pytest.raises(ValueError, match=rf"code of {both}.*add_safe_globals\(\[{both}\]\)"):
        read_weights(tmp_path / "m.ckpt")
    with torch.serialization.safe_globals([pathlib.PurePosixPath, pathlib.PureWindowsPath]):
        assert list(read_weights(tmp_path / "m.ckpt").arrays) == list(state)
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"code of torch\.nn\.modules\.linear\.Linear can rebuild"):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize("save", [_zip, _old])
def test_a_file_cut_off_anywhere_is_named(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    save(net().state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in (0, 1, 3, 10, 200, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        certain = length == 0 or (save is _zip and length >= 4)
        with pytest.raises(
            ValueError, match=rf"cut\.pt is cut off: {length} bytes" if certain else r"cut\.pt cannot be read: it is damaged, cut off"
        ):
            read_weights(tmp_path / "cut.pt")


def test_files_of_something_else_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt"):
        read_weights(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("to whom it may concern")
    with pytest.raises(ValueError, match=r"text\.pt cannot be read: it is damaged, cut off, or not a file of torch\.save"):
        read_weights(tmp_path / "text.pt")
    contents: list[tuple[object, str]] = [
        (torch.ones(3), r"holds a Tensor; expected a state dict"),
        (
            {"weights": state, "epoch": 3},
            r"holds no state dict but \['epoch', 'weights'\]; expected one state dict, by itself or under",
        ),
        ({"model": state, "state_dict": state}, r"holds state dicts under \['state_dict', 'model'\]; expected one"),
        ({}, r"holds no state dict but \[\]"),
    ]
    for content, why in contents:
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(ValueError, match=why):
            read_weights(tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_scripted_module_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"m\.pt cannot be read.*TorchScript"):
        read_weights(tmp_path / "m.pt")


# ---- loading --------------------------------------------------------------------------------------------------------


def test_findings_of_loaded_weights_are_those_of_the_training_bit_for_bit(tmp_path: Path) -> None:
    live = MemoryTracker()
    train([ObserverCallback(probe(), tracker=live, checkpoints=tmp_path, strict=True)])
    offline = observed(TorchNetwork(Lit()), find(tmp_path))
    for analysis in ("nap", "topomap", "saliency"):
        assert list(live.findings[analysis]) == [0, 1, 2]
        for step, findings in live.findings[analysis].items():
            assert same(findings, offline[analysis][step]), (analysis, step)
    assert not same(offline["nap"][1], offline["nap"][2])


def test_a_loaded_network_answers_for_its_new_weights_and_is_the_same_object(tmp_path: Path) -> None:
    network = TorchNetwork(net(1), example=probe().inputs)
    module, weight = network.module, network.module.get_parameter("conv1.weight")
    before = network.outputs(probe().inputs)
    torch.save(net(0).state_dict(), tmp_path / "m.pt")
    load_weights(network, tmp_path / "m.pt")
    assert network.module is module
    assert network.module.get_parameter("conv1.weight") is weight
    np.testing.assert_array_equal(network.outputs(probe().inputs), TorchNetwork(net(0)).outputs(probe().inputs))
    assert (network.outputs(probe().inputs) != before).any()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda module: module.state_dict(),
        lambda module: {"state_dict": {f"network.{name}": value for name, value in module.state_dict().items()}, "epoch": 1},
        lambda module: {f"module.{name}": value for name, value in module.state_dict().items()},  # DDP
        lambda module: {f"model.module.{name}": value for name, value in module.state_dict().items()},
        lambda module: torch.compile(module).state_dict(),  # type: ignore[attr-defined]
        lambda module: {f"network._orig_mod.{name}": value for name, value in module.state_dict().items()},
        lambda module: {name.replace(".", "._orig_mod.", 1): value for name, value in module.state_dict().items()},  # each part compiled
        lambda module: {
            "state_dict": {f"network.{k}": v for k, v in module.state_dict().items()} | {"loss.weight": torch.ones(3), "conv1.weight": torch.ones(2)}
        },
    ],
)
def test_whatever_stands_before_the_names_the_weights_are_found(tmp_path: Path, wrapped: Callable[[nn.Module], object]) -> None:
    saved = net(0)
    torch.save(wrapped(saved), tmp_path / "m.pt")
    network = TorchNetwork(net(1))
    load_weights(network, tmp_path / "m.pt")
    assert equal(network.module, saved)


def test_a_module_with_compiled_parts_takes_weights_of_one_without(tmp_path: Path) -> None:
    saved, module = net(0), net(1)
    module.conv1 = torch.compile(module.conv1)  # type: ignore[assignment]
    torch.save(saved.state_dict(), tmp_path / "m.pt")
    load_weights(TorchNetwork(module), tmp_path / "m.pt")
    assert equal(module, saved)


def test_the_modules_own_names_win_over_those_with_something_before_them(tmp_path: Path) -> None:
    saved = net(0)
    torch.save({**{f"ema.{name}": value for name, value in net(2).state_dict().items()}, **saved.state_dict()}, tmp_path / "m.pt")
    network = TorchNetwork(net(1))
    load_weights(network, tmp_path / "m.pt")
    assert equal(network.module, saved)
    load_weights(network, tmp_path / "m.pt", prefix="ema.")
    assert equal(network.module, net(2))


def test_two_copies_with_different_weights_are_no_guess_and_one_held_twice_is_one(tmp_path: Path) -> None:
    saved, average = net(0), net(2)
    module = nn.ModuleDict({"net": saved, "ema": average})
    torch.save(module.state_dict(), tmp_path / "m.pt")
    network = TorchNetwork(net(1))
    with pytest.raises(
        ValueError,
        match=r"m\.pt does not fit Net: its entries .* under each of \['net\.', 'ema\.'\], with different weights; .*prefix='net\.'",
    ):
        load_weights(network, tmp_path / "m.pt")
    assert equal(network.module, net(1))
    load_weights(network, tmp_path / "m.pt", prefix="ema.")
    assert equal(network.module, average)
    torch.save(nn.ModuleDict({"net": saved, "loss": nn.ModuleDict({"of": saved})}).state_dict(), tmp_path / "m.pt")
    load_weights(network, tmp_path / "m.pt")
    assert equal(network.module, saved)
    torch.save(nn.ModuleDict({"net": saved, "ema": copy.deepcopy(saved)}).state_dict(), tmp_path / "m.pt")
    with pytest.raises(ValueError, match="under each of"):  # equal today, and not at the next step
        load_weights(network, tmp_path / "m.pt")


@pytest.mark.parametrize("how", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_widened_exactly_and_never_rounded(tmp_path: Path, how: torch.dtype) -> None:
    saved = {name: value.to(how) if value.is_floating_point() else value for name, value in net(0).state_dict().items()}
    torch.save(saved, tmp_path / "m.pt")
    network = TorchNetwork(net(1))
    if how == torch.float64:
        with pytest.raises(ValueError, match=r"conv1\.weight is torch\.float64, which would be rounded to the module's torch\.float32"):
            load_weights(network, tmp_path / "m.pt")
        assert equal(network.module, net(1))
    else:
        load_weights(network, tmp_path / "m.pt")
        assert all(torch.equal(value.to(how), saved[name]) for name, value in network.module.state_dict().items())


def test_half_types_do_not_fit_each_other(tmp_path: Path) -> None:
    for a, b in ((torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16), (torch.float32, torch.bfloat16)):
        torch.save(nn.Linear(2, 2, dtype=a).state_dict(), tmp_path / "m.pt")
        with pytest.raises(ValueError, match="would be rounded"):
            load_weights(TorchNetwork(nn.Linear(2, 2, dtype=b)), tmp_path / "m.pt")


def test_what_does_not_fit_is_refused_with_what_is_missing_and_the_module_stays_as_it_was(tmp_path: Path) -> None:
    def refused(state: dict[str, Tensor], why: str, **options: str) -> None:
        torch.save(state, tmp_path / "m.pt")
        network = TorchNetwork(net(1))
        with pytest.raises(ValueError, match=why):
            load_weights(network, tmp_path / "m.pt", **options)
        assert equal(network.module, net(1))

    state = {f"net.{name}": value for name, value in net(0).state_dict().items()}
    lacking = {name: value for name, value in state.items() if name != "net.head.bias"}
    refused(lacking, r"m\.pt does not fit Net: under the prefix 'net\.' net\.head\.bias is missing; build the network with the options")
    narrow = state | {"net.head.weight": torch.ones(2, 128)}
    refused(narrow, r"under the prefix 'net\.' net\.head\.weight is \(2, 128\), and the module's is \(3, 128\)")
    refused(lacking | {"ema.conv1.weight": state["net.conv1.weight"]}, r"net\.head\.bias is missing; the prefixes there are: \['net\.', 'ema\.'\]")
    refused({"a": torch.ones(1)}, r"none of its entries is there; it has conv1\.weight, .* and \d+ more, and the file a$")
    refused({f"net_{name}": value for name, value in net(0).state_dict().items()}, "none of its entries is there")
    refused(state, r"under the prefix 'ema\.' ema\.conv1\.weight is missing, .*; the prefixes there are: \['net\.'\]", prefix="ema.")
    refused(
        state | {"net.norm1.num_batches_tracked": torch.ones(())},
        r"tracked is torch\.float32, which would be rounded to the .*int64",
    )


def test_a_network_without_weights_of_its_own_takes_any_file(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "m.pt")
    load_weights(TorchNetwork(nn.Sequential(nn.Flatten())), tmp_path / "m.pt")


def test_weights_that_the_module_has_yet_to_make_are_made(tmp_path: Path) -> None:
    saved = nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "m.pt")
    lazy = nn.LazyLinear(2)
    load_weights(TorchNetwork(lazy), tmp_path / "m.pt")
    assert equal(lazy, saved)
