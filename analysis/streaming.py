"""A folder of images of any size streamed past a network, to find what each unit responds to most; gone on with after a kill.

Hours of looking at images are worth a state on disk: beside the top images of every unit as far as they are known it holds
what was asked, so that nothing else is ever gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netlapse.analysis.receptive_field.top import TopInputs, top_inputs
from netlapse.data.stream import Batch, Listing, Look, batches
from netlapse.tracking.checkpoints import sha256
from netlapse.tracking.folder import packed, unpacked, write
from netlapse.types import Array, Findings, Height, Network, Tracker


@dataclass(frozen=True, eq=False)
class Asked:
    """Which images a network is shown, how, and what is asked about them.

    shown   what each image becomes before the network sees it
    layers  their units are asked about; the rest as for `top_inputs`
    """

    images: Listing
    shown: Look
    layers: Sequence[str]
    k: int = 10
    by: Height = "maximum"
    batch_size: int = 64

    @property
    def about(self) -> dict[str, object]:
        """All that what is found depends on, but the network."""
        look = self.shown
        return {
            "images": len(self.images),
            "sha256 of the images' paths and sizes": self.images.sha256,
            "layers": list(self.layers),
            "k": self.k,
            "by": self.by,
            "size": list(look.shape),
            "fit": look.fit,
            "mean": list(look.mean),
            "deviation": list(look.deviation),
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known once images up to number `stop` have been shown; `top` is None where none of them could be read."""

    top: TopInputs | None
    stop: int
    unread: Mapping[int, str]


def differing(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """What of two descriptions of what was asked is not the same, in words; "" where all is."""
    return ", ".join(f"{key} {before.get(key)} and not {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key))


def plain(about: Mapping[str, object]) -> dict[str, object]:
    """A description as it comes out of a file that it was written to."""
    read: dict[str, object] = json.loads(json.dumps(about))
    return read


Progress = Callable[["Batch | Seen"], None]


def stream(
    network: Network,
    asked: Asked,
    state: Path,
    *,
    weights: str = "",
    save_every: int = 2000,
    threads: int = 4,
    anew: bool = False,
    progress: Progress = lambda shown: None,
) -> Seen:
    """Show the images to a network; what it did is kept in the file `state`, from which a second call goes on.

    weights     tells the network from others, as the sha256 of its checkpoint
    save_every  images, rounded up to batches: what a kill can cost
    anew        begin again where the state is of something else; else that is refused
    progress    is told of the state that is gone on from, and of every batch when it has been shown

    A pass that was cut off and gone on with finds what one in one go does, bit for bit. Raises ValueError where the state is of other
    images, another network or other options, where no image at all can be read, and what `batches` and `top_inputs` raise.
    """
    if save_every < 1:
        raise ValueError(f"the state was to be kept every {save_every} images; expected at least 1")
    about = {**asked.about, "network": weights}
    seen = _gone_on(state, about, anew=anew) or Seen(None, 0, {})
    progress(seen)
    top, unread, saved = seen.top, dict(seen.unread), seen.stop
    with network.undisturbed():
        for batch in batches(asked.images, asked.shown, batch_size=asked.batch_size, threads=threads, start=seen.stop):
            unread |= batch.unread
            if len(batch.indices):
                top = top_inputs(network, [(batch.indices, batch.inputs)], asked.layers, asked.k, by=asked.by, start=top)
            seen = Seen(top, batch.stop, unread)
            if batch.stop - saved >= save_every or batch.stop == len(asked.images):
                write(state, _kept(seen, about))
                saved = batch.stop
            progress(batch)
    if seen.top is None:
        state.unlink(missing_ok=True)
        raise ValueError(f"none of the {len(asked.images)} images below {asked.images.root} can be read; the first: {next(iter(unread.values()))}")
    return seen


def streamed(
    network: Network,
    asked: Asked,
    checkpoints: Mapping[int, Path],
    load: Callable[[Path], None],
    folder: Path,
    *,
    steps: Sequence[int],
    save_every: int = 2000,
    threads: int = 4,
    anew: bool = False,
    progress: Callable[[int], AbstractContextManager[Progress]],
) -> Iterator[tuple[int, Seen | str, Path]]:
    """`stream` at one checkpoint after the other: (step, what was seen, or why its checkpoint cannot be read, the state).

    A state stays in the folder until whoever has recorded what was seen removes it: without it all would be shown again.
    """
    for step in steps:
        path, state = checkpoints[step], folder / f"step_{step:08d}.npz"
        try:
            load(path)
        except (OSError, ValueError) as error:
            yield step, str(error), state
            continue
        with progress(step) as tell:
            seen = stream(network, asked, state, weights=sha256(path), save_every=save_every, threads=threads, anew=anew, progress=tell)
        yield step, seen, state


def wanting(tracker: Tracker, name: str, about: Mapping[str, object], steps: Collection[int], *, force: bool = False) -> list[int]:
    """At which of the steps the record lacks what is asked about images, ascending; with `force` all of them.

    Raises ValueError where the record holds something else of that name that would not be replaced.
    """
    held, before = set(tracker.steps.get(name, ())), noted(tracker, name)
    if held and before is None:
        raise ValueError(f"the record has an analysis {name!r} that is not of images in a folder; give this one another name, as images.name=photos")
    known = {step: differing(before[str(step)], plain(about)) for step in sorted(held) if before and str(step) in before}
    others = {step: differs for step, differs in known.items() if differs and not (force and step in steps)}
    if others:
        step, differs = next(iter(others.items()))
        raise ValueError(
            f"{name!r} is in the record at steps {list(others)}, and is of something else (at step {step} {differs}); give this one another "
            "name, as images.name=photos, or replace all of them with force=true"
        )
    return sorted(steps if force else set(steps) - known.keys())


def note(tracker: Tracker, name: str, step: int | None = None, about: Mapping[str, object] | None = None) -> None:
    """Note in the record that the name is one for images, and of which what it holds at a step is."""
    more = {} if step is None or about is None else {str(step): plain(about)}
    tracker.describe({"images": {name: {**(noted(tracker, name) or {}), **more}}})


def noted(tracker: Tracker, name: str) -> dict[str, Mapping[str, object]] | None:
    """step -> what was asked; None where nothing is known of that name."""
    recorded = tracker.manifest.get("images")
    before = recorded.get(name) if isinstance(recorded, Mapping) else None
    return dict(before) if isinstance(before, Mapping) else None


def _kept(seen: Seen, about: Mapping[str, object]) -> bytes:
    arrays: dict[str, Array] = {
        "about": np.array(json.dumps(about)),
        "stop": np.array(seen.stop),
        "unread": np.array(list(seen.unread), np.int64),
        "why": np.array(list(seen.unread.values()), np.str_),
    }
    if seen.top is not None:
        for part in ("values", "inputs", "positions"):
            arrays |= {f"{part}/{layer}": found for layer, found in getattr(seen.top, part).items()}
    return packed(Findings(arrays))


def _gone_on(state: Path, about: Mapping[str, object], *, anew: bool) -> Seen | None:
    """The state, if there is one; raises ValueError where it is of something else, or returns None if that is to be begun anew."""
    if not state.is_file():
        return None
    try:
        arrays = unpacked(state.read_bytes()).arrays
        differs = differing(json.loads(str(arrays["about"])), plain(about))
    except Exception as error:
        arrays, differs = {}, f"cannot be read: {error}"
    if differs and anew:
        return None
    if differs:
        raise ValueError(
            f"what was begun before, and cut off, is of something else ({differs}); give what was given then, or begin anew with force=true"
        )
    parts = [{name.partition("/")[2]: found for name, found in arrays.items() if name.startswith(f"{part}/")} for part in _PARTS]
    top = TopInputs(*parts) if parts[0] else None  # type: ignore[arg-type]
    return Seen(top, int(arrays["stop"].item()), dict(zip(arrays["unread"].tolist(), arrays["why"].tolist())))


_PARTS = ("values", "inputs", "positions")
