"""`./run reanalyse`: analyses of saved checkpoints, into the run they belong to; `python -m netlapse.analysis`.

Nothing here knows a framework: the config group `framework` names the functions that do.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from netlapse import saved
from netlapse.analysis.relayout import Source, relayout
from netlapse.analysis.streaming import Asked, Progress, Seen, note, streamed, wanting
from netlapse.analysis.top_images import Fields, as_findings, square
from netlapse.audit import audit
from netlapse.backends import inntrospect
from netlapse.cli import explained, import_for
from netlapse.data.stream import Batch, Listing, Look, listing
from netlapse.export import findings_to_inntrospect
from netlapse.home import home, writable
from netlapse.layers import select
from netlapse.multirun import outcomes, swept
from netlapse.observer import Observer
from netlapse.reanalysis import Done, prepare, reanalyse
from netlapse.recompose import analyses_of, chosen
from netlapse.report import page
from netlapse.tracking.folder import packed, write
from netlapse.tracking.memory import MemoryTracker
from netlapse.tracking.names import plain_name
from netlapse.tracking.probes import PROBE, from_bytes
from netlapse.types import Findings, Network, ProbeSet, Tracker

T = TypeVar("T")


@hydra.main(version_base="1.3", config_path="pkg://netlapse.conf", config_name="reanalyse")
def job(cfg: DictConfig) -> None:
    """One reanalysis, or one job of several."""
    overrides = list(HydraConfig.get().overrides.task)
    explained(lambda given: _ended(run_reanalysis(given, chosen(given, overrides))), cfg)


def main() -> None:
    """The program. With `-m` the jobs ask their networks, side by side; what these answered is then put together in order."""
    if not {"-m", "--multirun"} & set(sys.argv[1:]):
        job()
        return
    with tempfile.TemporaryDirectory(dir=writable(home() / "answers")) as folder:
        sys.argv.append(f"answers={folder}")
        try:
            swept(job)
        finally:  # what the jobs that came to an end know is kept, whatever became of the others
            whole: list[bool] = []
            for where in sorted(path for path in Path(folder).glob("*") if path.is_dir()):
                explained(lambda where: whole.append(_put_together(where)), where)
            if told := outcomes(Path(folder)):
                print(_told(told))
    if not all(whole):
        raise SystemExit(1)


def _told(outcomes: Sequence[tuple[Sequence[str], str | None]]) -> str:
    """What became of the jobs, in a line, and a line for each that failed."""
    failed = [(words, why) for words, why in outcomes if why is not None]
    lines = [f"\n{_counted(len(outcomes), 'job')}: {len(outcomes) - len(failed)} went well, {len(failed)} failed."]
    alike = set.intersection(*(set(words) for words, _ in outcomes)) if len(outcomes) > 1 else set()
    return "\n".join([*lines, *(f"  failed: {' '.join(word for word in words if word not in alike)}: {why}" for words, why in failed)])


def run_reanalysis(cfg: DictConfig, asked: Mapping[str, object] | None = None) -> bool:
    """What the program does, of a config composed by anybody; returns whether all that was to be found was found.

    asked  what of the config was asked for, see `chosen`: the rest gives way to the run's own config
    """
    asked = asked or {}
    if cfg.answers is not None and cfg.relayout is None and cfg.export is None and not cfg.audit:
        _ask(cfg, asked)
        return True
    tracker = saved.record(cfg)
    try:
        return _into(saved.own_config(cfg, asked, tracker), asked, tracker)
    finally:
        if tracker is not None:
            tracker.close()


def _ended(whole: bool) -> None:
    if not whole:
        # Of one job among several Hydra takes an error for that job's alone, and an exit for the end of all.
        several = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
        raise RuntimeError("netlapse: not all of this was in order, see above") if several else SystemExit(1)


def _copy(cfg: DictConfig) -> Tracker:
    """What the run's record holds, in memory: several jobs may look at it at once."""
    if cfg.run is None:
        return MemoryTracker()
    record = saved.record(cfg)
    assert record is not None
    try:
        return MemoryTracker.of(record)
    finally:
        record.close()


# --------------------------------------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class Work:
    """What is to be analysed by whom; `load` puts the weights of one of the checkpoints into the network."""

    observer: Observer
    network: Network
    checkpoints: Mapping[int, Path]
    load: Callable[[Path], None]


def _into(cfg: DictConfig, asked: Iterable[str], tracker: Tracker | None, answers: Path | None = None) -> bool:
    """Do what is asked for; the run is made if there is none."""
    if cfg.relayout is not None or cfg.export is not None:
        if tracker is None:
            raise ValueError("run is null; name the run whose findings are to be laid out anew or exported, as run=<id>")
        return _laid_out_anew(cfg, tracker) if cfg.relayout is not None else _exported(cfg, tracker)
    with tempfile.TemporaryDirectory() as folder:
        if cfg.audit:
            return _audited(cfg, tracker, Path(folder))
        work = _work(cfg, list(asked), tracker or MemoryTracker(), Path(folder))
        if cfg.images.folder is not None:
            return _images_shown(cfg, work, tracker)
        work.observer.fits(work.network, resume=tracker is not None)
        if tracker is not None:
            done = _analysed(cfg, work, answers)
        else:
            tracker = work.observer.tracker = instantiate(cfg.tracker)
            failed = True
            try:
                done = _analysed(cfg, work, answers, made=True)
                failed = False
            finally:
                tracker.finish(failed=failed)
    print(_summary(done, work, tracker))
    return done.whole


def _work(cfg: DictConfig, asked: Sequence[str], tracker: Tracker, folder: Path) -> Work:
    if cfg.activations is not None:
        return _recorded(cfg, tracker, asked)
    import_for(cfg.framework.network._target_)
    checkpoints, hashes = saved.checkpoints_of(cfg, tracker, folder)
    probe = saved.probe_of(cfg, asked, tracker)
    network, load = saved.network_of(cfg, probe, tracker, checkpoints)

    return Work(_observer(cfg, asked, probe, tracker, checkpoints), network, checkpoints, saved.checked(network, load, hashes))


def _analysed(cfg: DictConfig, work: Work, answers: Path | None, *, made: bool = False) -> Done:
    observer = work.observer
    if not observer.wanting(work.checkpoints, force=cfg.force):
        return Done()
    about: dict[str, object] = {
        "title": cfg.name or (f"{Path(str(cfg.checkpoints or cfg.activations)).name}, reanalysed" if made else None),
        "model": type(getattr(work.network, "module", getattr(work.network, "model", work.network))).__name__,
        "step_unit": cfg.unit,
        "framework": str(cfg.framework.load._target_).split(".")[2].partition("_")[0],
        "command": " ".join(sys.argv),
    }
    if "failed" in observer.tracker.manifest:
        about["failed"] = observer.tracker.manifest["failed"]
    observer.start(work.network, {key: value for key, value in about.items() if value is not None}, resume=not made)
    if made:
        observer.tracker.document("config.yaml", OmegaConf.to_yaml(cfg))
    elif cfg.force:
        observer.tracker.describe({"replaced": analyses_of(cfg)})
    done = reanalyse(
        observer, work.network, work.checkpoints, work.load, force=cfg.force, answers=answers, progress=functools.partial(_shown, what="analysing")
    )
    if done.found:
        observer.draw()
    return done


def _observer(cfg: DictConfig, asked: Iterable[str], probe: ProbeSet, tracker: Tracker, steps: Collection[int]) -> Observer:
    layers: str | list[str] = cfg.layers if isinstance(cfg.layers, str) else list(cfg.layers)
    shown = tracker.manifest.get("probe")
    batch_size = (cfg.get("callback") or {}).get("batch_size") or (shown.get("batch_size") if isinstance(shown, Mapping) else None) or 64
    known = tracker.manifest.get("layers")
    if "layers" not in asked and tracker.read("config.yaml") is None and isinstance(known, list):
        layers = [layer["name"] for layer in known]
    analyses: dict[str, Any] = {str(name): analysis for name, analysis in instantiate(cfg.analyses).items()}
    # One job of several has some of the steps, and who puts them together has them all.
    replaces = cfg.force and (cfg.answers is not None or steps)
    return Observer(
        probe, analyses, tracker, layers=layers, grouping=instantiate(cfg.grouping), strict=cfg.strict, batch_size=batch_size, replaces=replaces
    )


def _shown(steps: Iterable[T], what: str) -> Iterable[T]:
    """The steps, with a bar of how far what is done with them is, where somebody is looking."""
    return cast(Iterable[T], tqdm(steps, desc=what, unit="checkpoint", disable=None, dynamic_ncols=True))


def _summary(done: Done, work: Work, tracker: Tracker) -> str:
    lines = []
    steps, names = sorted(done.found), list(dict.fromkeys(name for names in done.found.values() for name in names))
    if not done.found and done.whole:
        lines.append(f"Nothing was missing of {', '.join(work.observer.analyses)} at {len(work.checkpoints)} checkpoints.")
    elif done.found:
        lines.append(f"Found {', '.join(names)} at {len(steps)} checkpoints, of step {steps[0]} to {steps[-1]}.")
    lines += [f"Not read, step {step}: {why}" for step, why in done.unread.items()]
    lines += [f"Failed at step {step}: {', '.join(names)}" for step, names in done.failed.items()]
    return "\n".join([*lines, f"Recorded in {tracker.place}"])


# ------------------------------------------------------------------------------------------- other things to be done


def _laid_out_anew(cfg: DictConfig, tracker: Tracker) -> bool:
    source = cast(Source, int(cfg.relayout) if str(cfg.relayout).isdigit() else str(cfg.relayout))
    topomap = (cfg.analyses or {}).get("topomap") or {}
    options = {name: _plain(topomap[name]) for name in _DRAWN_WITH if name in topomap}
    recording = tracker.recording()
    name, found = relayout(recording, source=source, layout=instantiate(cfg.layout), seed=cfg.seed, colours=cfg.colours, **options)
    # How pictures are drawn does not show in what is recorded beside them.
    asked = {option: str(value) for option, value in options.items()}
    otherwise = cfg.force or _drawn_with(tracker, name) != asked
    known = recording.findings.get(name, {})
    new = {step: findings for step, findings in found.items() if otherwise or step not in known or packed(known[step]) != packed(findings)}
    for step, findings in _shown(new.items(), "drawing"):
        tracker.log(name, step, findings)
    if new:
        tracker.describe({"drawn": {name: asked}})
        probe = tracker.read(PROBE)
        tracker.document("timelapse.html", page(tracker.recording(), None if probe is None else from_bytes(probe)))
    print(f"Laid out anew as {name}: {len(new)} of {len(found)} steps, the others were so already.\nRecorded in {tracker.place}")
    return True


_DRAWN_WITH = ("resolution", "limit", "kind", "dots", "against", "groups", "min_inputs", "align_layers", "quality")


def _drawn_with(tracker: Tracker, name: str) -> object:
    """With which options a relayout was drawn last; None where it was not, or by a version that did not say."""
    drawn = tracker.manifest.get("drawn")
    return drawn.get(name) if isinstance(drawn, Mapping) else None


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _exported(cfg: DictConfig, tracker: Tracker) -> bool:
    folder = findings_to_inntrospect(tracker.recording(), Path(str(cfg.export)), step=cfg.step)
    print(f"Exported to {folder}")
    return True


def _audited(cfg: DictConfig, tracker: Tracker | None, folder: Path) -> bool:
    checkpoints, hashes = saved.checkpoints_of(cfg, tracker, folder)
    known = {step: hashes[path] for step, path in checkpoints.items() if path in hashes}
    frozen = [str(name) for name in cfg.frozen]
    found = audit(
        checkpoints,
        instantiate(cfg.framework.read),
        hashes=known,
        unit=saved.unit_of(cfg, tracker),
        frozen=frozen,
        progress=functools.partial(_shown, what="auditing"),
    )
    if tracker is not None:
        tracker.table("checkpoints", found.table())
    print(found.report())
    return found.exit_code == 0


def _recorded(cfg: DictConfig, tracker: Tracker, asked: Iterable[str]) -> Work:
    """Activations that somebody else recorded, at one step: there is no network and nothing to load."""
    network, probe = inntrospect.read(str(cfg.activations))
    recorded = {cfg.step or 0: Path(str(cfg.activations))}
    return Work(_observer(cfg, asked, probe, tracker, recorded), network, recorded, lambda path: None)


# --------------------------------------------------------------------------------------------- images in a folder


def _images_shown(cfg: DictConfig, work: Work, tracker: Tracker | None) -> bool:
    """What units respond to most in a folder of images, recorded as an analysis of its own at each step."""
    if tracker is None:
        raise ValueError("run is null; name the run that what is found in the images is recorded in, as run=<id>")
    options, name = cfg.images, str(cfg.images.name)
    asked = _asked(cfg, work)
    fields, about = _fields(cfg, asked), _about(cfg, asked)
    unread: dict[int, str] = {}
    found: dict[int, Findings] = {}
    for step, seen, state in _streamed(cfg, work, asked, tracker):
        if isinstance(seen, str):
            unread[step] = seen
            continue
        found[step] = as_findings(
            work.network, asked, seen, step, name=name, units=options.units, thumbnails=options.thumbnails, fields=fields, threads=options.threads
        )
        note(tracker, name)
        tracker.log(name, step, found[step])
        note(tracker, name, step, about)
        state.unlink(missing_ok=True)
    if found:
        last = found[max(found)]
        skipped, why = (last.arrays[part].tolist() for part in ("unread", "unread_why"))
        if skipped or tracker.read(f"{name}_unread.json") is not None:
            tracker.table(f"{name}_unread", {"file": skipped, "why": why})
        rest = f"; {len(skipped):,} could not be read, see {name}_unread.json" if skipped else ""
        print(f"Found {name} among {_counted(len(asked.images) - len(skipped), 'image')} at {_counted(len(found), 'checkpoint')}{rest}.")
    elif not unread:
        print(f"Nothing was missing of {name} at {_counted(len(work.checkpoints), 'checkpoint')}.")
    print("\n".join([*(f"Not read, step {step}: {why}" for step, why in unread.items()), f"Recorded in {tracker.place}"]))
    return not unread


def _asked(cfg: DictConfig, work: Work) -> Asked:
    """What is asked about the images, and of which layers."""
    options, probe = cfg.images, work.observer.probe
    if probe.inputs.ndim != 4:
        raise ValueError(f"images.folder was given, and this network was shown inputs of shape {probe.inputs.shape[1:]}, which are no images")
    if options.size is not None and (not OmegaConf.is_list(options.size) or len(options.size) != 2):
        raise ValueError(f"images.size is {options.size}; expected [height, width]")
    height, width = options.size or probe.inputs.shape[1:3]
    shown = Look((int(height), int(width), probe.inputs.shape[3]), options.fit, _each(options.mean), _each(options.deviation))
    layers = select(work.network.describe(probe.inputs[:2]), work.observer.layers, refused=work.network.refused)
    return Asked(listing(str(options.folder)), shown, layers, options.k, options.by, work.observer.batch_size)


def _streamed(cfg: DictConfig, work: Work, asked: Asked, tracker: Tracker) -> Iterator[tuple[int, Seen | str, Path]]:
    options, run = cfg.images, Path(str(cfg.run))
    steps = wanting(tracker, str(options.name), _about(cfg, asked), work.checkpoints, force=cfg.force)
    if asked.images.others and steps:
        print(f"passed over: {_counted(asked.images.others, 'file')} below {asked.images.root} not named as an image", file=sys.stderr)
    record = hashlib.sha256(str(run.resolve() if run.exists() else run).encode()).hexdigest()[:16]
    told: set[int] = set()
    return streamed(
        work.network,
        asked,
        work.checkpoints,
        work.load,
        writable(home() / "streams" / record / plain_name("an analysis", str(options.name))),
        steps=steps,
        save_every=options.save_every,
        threads=options.threads,
        anew=cfg.force,
        progress=lambda step: _progress(asked.images, f"step {step}", told),
    )


@contextmanager
def _progress(images: Listing, what: str, told: set[int]) -> Iterator[Progress]:
    """Shows how many of the images were shown: a bar, or where nobody is looking a line for every tenth; and each that cannot be read, once."""
    bar = tqdm(total=len(images), desc=what, unit="image", disable=None, dynamic_ncols=True)
    done = tenth = 0

    def progress(shown: Batch | Seen) -> None:
        nonlocal done, tenth
        if isinstance(shown, Seen) and shown.stop == len(images):  # what another process saw, it has told of
            done, tenth = shown.stop, 10
            told.update(shown.unread)
        elif isinstance(shown, Seen) and shown.stop:
            tqdm.write(f"{what}: going on after {shown.stop:,} of {len(images):,} images", file=sys.stderr)
            bar.reset(len(images))
            bar.initial = shown.stop
        for index in sorted(shown.unread.keys() - told):
            tqdm.write(f"skipped: {shown.unread[index]}", file=sys.stderr)
            told.add(index)
        bar.update(shown.stop - done)
        done = shown.stop
        if bar.disable and done * 10 // len(images) > tenth:
            tenth = done * 10 // len(images)
            print(f"{what}: {done:,} of {len(images):,} images", file=sys.stderr)

    with bar:
        yield progress


def _fields(cfg: DictConfig, asked: Asked) -> Fields | None:
    options = cfg.images
    fields = Fields(options.occluder, options.stride, options.fill) if options.fields else None
    if fields is not None:
        square(asked.shown.shape, fields)
    return fields


def _about(cfg: DictConfig, asked: Asked) -> dict[str, object]:
    """All that tells what is recorded of images from another such question."""
    drawn = ("units", "thumbnails", "fields", *(("occluder", "stride", "fill") if cfg.images.fields else ()))
    return asked.about | {key: cfg.images[key] for key in drawn}


def _each(values: Any) -> tuple[float, ...]:
    return () if values is None else tuple(float(value) for value in (values if OmegaConf.is_list(values) else [values]))


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


# --------------------------------------------------------------------------------------------------- jobs side by side


def _ask(cfg: DictConfig, asked: Mapping[str, object]) -> None:
    """One job: what its network answers, left in a folder that it shares with the jobs that differ in nothing but the step."""
    tracker = _copy(cfg)
    cfg = saved.own_config(cfg, asked, tracker if cfg.run is not None else None)
    alike = OmegaConf.merge(cfg, {"step": None})
    where = Path(str(cfg.answers)) / hashlib.sha256(OmegaConf.to_yaml(alike).encode()).hexdigest()[:16]
    where.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = _work(cfg, list(asked), tracker, Path(folder))
        task = {"config": OmegaConf.to_yaml(cfg), "asked": list(asked), "steps": list(work.checkpoints)}
        write(where / f"job-{uuid.uuid4().hex}.json", json.dumps(task).encode())
        if cfg.images.folder is not None:
            for _ in _streamed(cfg, work, _asked(cfg, work), tracker):
                pass  # the state is kept, and found when all is put together
            return
        work.observer.fits(work.network, resume=cfg.run is not None)
        prepare(work.observer, work.network, work.checkpoints, work.load, where, force=cfg.force)


def _put_together(where: Path) -> bool:
    """What several jobs were answered, put into the record in the order of the steps."""
    tasks = [json.loads(path.read_text()) for path in where.glob("job-*.json")]
    if not tasks:
        return True  # no job came as far as that, and each has said why
    cfg = OmegaConf.create(tasks[0]["config"])
    cfg.answers, cfg.step = None, sorted({step for task in tasks for step in task["steps"]})
    tracker = saved.record(cfg)
    try:
        return _into(cfg, tasks[0]["asked"], tracker, where)
    finally:
        if tracker is not None:
            tracker.close()


if __name__ == "__main__":
    main()
