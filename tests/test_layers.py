"""Which layers are observed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from netlapse.layers import auto, select
from netlapse.types import Layer

LAYERS = (
    Layer("conv1", "Conv2d", (8, 8, 4), "weights"),
    Layer("relu1", "ReLU", (8, 8, 4), "activation"),
    Layer("block.conv", "Conv2d", (8, 8, 4), "weights"),
    Layer("block.relu", "ReLU", (8, 8, 4), "activation"),
    Layer("block", "Block", (8, 8, 4), "block"),
    Layer("drop", "Dropout", (8, 8, 4), "other"),
    Layer("fc", "Linear", (10,), "output"),
)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("conv1", ("conv1",)),
        (["fc", "conv1"], ("conv1", "fc")),
        ("Conv2d", ("conv1", "block.conv")),
        ("*relu*", ("relu1", "block.relu")),
        ("block*", ("block.conv", "block.relu", "block")),
        ("block", ("block",)),
        (["relu?", "ReLU", "relu1"], ("relu1", "block.relu")),
        ("[cf]*", ("conv1", "fc")),
        ("auto", ("relu1", "block.relu", "block")),
    ],
)
def test_layers_are_chosen_by_name_glob_and_type_in_execution_order(choice: str | list[str], expected: tuple[str, ...]) -> None:
    assert select(LAYERS, choice) == expected


def test_names_are_matched_with_their_case() -> None:
    assert select(LAYERS, "relu*") == ("relu1",)
    with pytest.raises(ValueError, match="no layer named, matching or of type 'CONV1'"):
        select(LAYERS, "CONV1")


def test_a_name_with_glob_characters_is_first_of_all_a_name() -> None:
    odd = (Layer("a*", "Linear", (2,), "weights"), Layer("ab", "Linear", (2,), "weights"))
    assert select(odd, "a*") == ("a*",)


@pytest.mark.parametrize("choice", ["conv9", ["conv1", "conv9"], ["conv9*"]])
def test_a_choice_that_matches_nothing_says_what_there_is(choice: str | list[str]) -> None:
    with pytest.raises(
        ValueError, match=r"of type 'conv9\*?'; this network has the layers \['conv1', .*'fc'\] of types \['Block', .*\], or take 'auto'"
    ):
        select(LAYERS, choice)


def test_a_refused_layer_says_why() -> None:
    with pytest.raises(ValueError, match="layer 'lstm' cannot be observed: its output is a tuple"):
        select(LAYERS, ["conv1", "lstm"], refused={"lstm": "its output is a tuple"})


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer chosen; give names, globs or types, or 'auto'"):
        select(LAYERS, [])


def layers(*roles: str) -> tuple[Layer, ...]:
    return tuple(Layer(f"{i}", "Any", (2,), role) for i, role in enumerate(roles))  # type: ignore[arg-type]


def test_auto_takes_nonlinearities_and_blocks_then_weights_then_the_output() -> None:
    assert auto(layers("weights", "activation", "block", "other", "output")) == ("1", "2")
    assert auto(layers("weights", "other", "weights", "output")) == ("0", "2")
    assert auto(layers("other", "output")) == ("1",)
    with pytest.raises(ValueError, match=r"'auto' finds no nonlinearity.*name the layers: \['0'\]"):
        auto(layers("other"))


def test_auto_takes_at_most_twelve_evenly_from_the_first_to_the_last() -> None:
    assert auto(layers(*["activation"] * 12)) == tuple(str(i) for i in range(12))
    chosen = [int(name) for name in auto(layers(*["activation"] * 100))]
    assert chosen == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    for n in range(13, 60):
        chosen = [int(name) for name in auto(layers(*["activation"] * n))]
        gaps = {b - a for a, b in pairwise(chosen)}
        assert len(chosen) == 12
        assert (chosen[0], chosen[-1]) == (0, n - 1)
        assert max(gaps) - min(gaps) <= 1
