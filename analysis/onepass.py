"""Saliency methods that one forward and one backward of a network serve together.

FullGrad, the gradients and class activation maps are made of the same pass, and a pass is all they cost. A method says what
it takes of one by a recipe, a function (network, inputs, classes, **its own options) -> `Recipe`, and stays a plain function
beside: called alone it follows its own recipe, and methods that are asked for together are made of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar, cast

import numpy as np

from netlapse.types import Array, Attributions, Exact, Float32, Float64, Int64, Magnitude, Network

BATCH_SIZE = 64
Method = Callable[[Network, Array, Int64], Float32 | Float64]
"""(network, inputs (n, h, w, c), classes (n,)) -> (n, h, w). A keyword `layer`, where it has one, names the explained layer."""
M = TypeVar("M", bound=Callable[..., Float32 | Float64])


@dataclass(frozen=True)
class Recipe:
    """What a method asks one pass for, as `Network.attributions` has it, and the maps it makes of (network, inputs, classes, answer) of a batch."""

    made: Callable[[Network, Array, Int64, Attributions], Exact]
    gradient: bool = False
    biases: frozenset[Magnitude] = frozenset()
    layers: frozenset[str] = frozenset()


def made_by(recipe: Callable[..., Recipe]) -> Callable[[M], M]:
    """Marks a method with its recipe, which takes the method's options but for `batch_size` and raises for what cannot be explained."""

    def marked(method: M) -> M:
        method.recipe = recipe  # type: ignore[attr-defined]
        return method

    return marked


def maps_of_recipes(recipes: Mapping[str, Recipe], network: Network, inputs: Array, classes: Int64, batch_size: int) -> dict[str, Exact]:
    """The maps of every recipe, of one pass for each batch."""
    inputs, classes = np.asarray(inputs), np.asarray(classes)
    maps: dict[str, list[Exact]] = {name: [] for name in recipes}
    gradient = any(recipe.gradient for recipe in recipes.values())
    biases = sorted(frozenset().union(*(recipe.biases for recipe in recipes.values())))
    layers = sorted(frozenset().union(*(recipe.layers for recipe in recipes.values())))
    with network.undisturbed():
        for start in range(0, len(inputs), batch_size):
            shown, asked = inputs[start : start + batch_size], classes[start : start + batch_size]
            found = network.attributions(shown, asked, gradient=gradient, biases=biases, layers=layers)
            for name, recipe in recipes.items():
                maps[name].append(recipe.made(network, shown, asked, found))
    return {name: cast(Exact, np.concatenate(parts)) for name, parts in maps.items()}


def maps_of_recipe(recipe: Recipe, network: Network, inputs: Array, classes: Int64, batch_size: int) -> Exact:
    """The maps of one recipe: what its method returns when it is called alone."""
    return maps_of_recipes({"": recipe}, network, inputs, classes, batch_size)[""]


def answered(methods: Mapping[str, Method], network: Network, inputs: Array, classes: Int64) -> Callable[[str], Float32 | Float64]:
    """What gives the maps of each method by its name, when they are asked for: of one pass those that have a recipe, the others as they are.

    A pass is of as many inputs as the smallest `batch_size` that one of them is bound to.
    """
    plans = {name: plan for name, method in methods.items() if (plan := _plan(method)) is not None}

    @cache
    def together() -> dict[str, Exact]:
        recipes = {name: recipe(network, inputs, classes) for name, (recipe, _) in plans.items()}
        return maps_of_recipes(recipes, network, inputs, classes, min(size for _, size in plans.values()))

    return lambda name: together()[name] if name in plans else methods[name](network, inputs, classes)


def _plan(method: Method) -> tuple[Callable[..., Recipe], int] | None:
    """The recipe of a method, bound to the options that the method is bound to, and its batch size; None where it has no recipe."""
    options: dict[str, object] = {}
    while isinstance(method, partial) and not method.args:
        options = {**method.keywords, **options}
        method = method.func
    recipe = getattr(method, "recipe", None)
    if recipe is None:
        return None
    size = options.pop("batch_size", BATCH_SIZE)
    assert isinstance(size, int)
    return partial(recipe, **options), size
