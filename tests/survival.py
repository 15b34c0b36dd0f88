"""Trainings that are killed, interrupted and started again on purpose: what both frameworks' scripts share.

`python -m tests.survival_lightning` and `python -m tests.survival_keras` import their framework once and then fork a process
of its own for each order they read: to import it again each time would take most of the time of a test. A forked process is
killed, receives signals, and ends (threads, `atexit`, exit code) as any other.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from netlapse.types import ProbeSet

EPOCHS = 3
HALF = ("half a file", "removing the spool")
"""Of what a process can be killed in the middle."""

FAULTS = {
    "a file of the spool": "netlapse.tracking.folder:write",
    "half a file": "pathlib:Path.write_bytes",
    "sending points": "netlapse.tracking.uploads:Uploads._points",
    "sending pictures": "netlapse.tracking.uploads:Uploads._pictures",
    "sending a file": "mlflow:MlflowClient.log_artifact",
    "the ledger": "netlapse.tracking.uploads:Uploads.remember",
    "an analysis": "netlapse.statistics:GroupStatistics.__init__",
    "the page": "netlapse.report:page",
    "opening the record": "netlapse.tracking.mlflow:MlflowTracker.start",
    "closing the record": "netlapse.tracking.mlflow:MlflowTracker.finish",
    "removing the spool": "netlapse.tracking.mlflow:shutil.rmtree",
}
"""Where a training can be killed: names of functions that both frameworks' trainings come through."""


@dataclass(frozen=True)
class Fault:
    """Be killed at the k-th call of a function: before it, after it, or in it, with half of a file written or of a folder removed."""

    at: str
    call: int
    when: str = "before"


@dataclass(frozen=True)
class Order:
    """One attempt of a training.

    folder     where its checkpoints and its log lie
    uri, run_id  the run it writes to; without a run it makes one
    fault      where it is killed, or what is raised: see `Fault`
    slow       seconds that each epoch takes at least
    raises     what is raised at the end of epoch 1: "error", "exit", or nothing
    counts     a file for the number of calls of each function of `FAULTS`
    """

    folder: str
    uri: str
    run_id: str | None = None
    fault: Fault | None = None
    slow: float = 0.0
    raises: str = ""
    counts: str = ""


def probe() -> ProbeSet:
    """Twelve small images of three classes."""
    rng = np.random.default_rng(0)
    return ProbeSet(rng.random((12, 8, 8, 1), np.float32), np.arange(12) % 3, ("ring", "stroke", "dot"))


def images(n: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """(n, 8, 8, 1), (n,): digits of three classes."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=3)
    return (digits.images[:n, :, :, None] / 16).astype(np.float32), digits.target[:n].astype(np.int64)


def epoch_ends(order: Order, epoch: int) -> None:
    """What is to happen at the end of an epoch, counted from 0, once it has been observed."""
    (Path(order.folder) / f"epoch_{epoch}").touch()
    until = time.monotonic() + order.slow
    while time.monotonic() < until:
        time.sleep(0.01)
    if epoch == 1 and order.raises == "error":
        raise RuntimeError("on purpose")
    if epoch == 1 and order.raises == "exit":
        sys.exit(7)


def serve(train: Callable[[Order], None]) -> None:
    """Fork a process that trains for each order on a line of standard input; tell its pid, and then how it ended."""
    for module in ("analysis.nap", "analysis.saliency", "analysis.topomap", "report", "statistics"):
        importlib.import_module(f"netlapse.{module}")
    images()
    for line in sys.stdin:
        order = json.loads(line)
        order["fault"] = Fault(**order["fault"]) if order["fault"] else None
        child = os.fork()
        if child == 0:
            _alone(Order(**order), train)
            return  # and the interpreter ends, as after any script
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _alone(order: Order, train: Callable[[Order], None]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests in the background has it ignored
    log = os.open(Path(order.folder) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((0, nothing), (1, log), (2, log)):
        os.dup2(new, old)
    sys.stdin = open(os.devnull)  # noqa: SIM115  # what was read ahead of the next orders is the parent's
    calls: Counter[str] = Counter()
    for name, path in FAULTS.items():
        _watch(name, path, calls, order.fault)
    train(order)
    if order.counts:
        import atexit

        atexit.register(lambda: Path(order.counts).write_text(json.dumps(calls)))


def _watch(name: str, path: str, calls: Counter[str], fault: Fault | None) -> None:
    module, _, dotted = path.partition(":")
    *owners, attribute = dotted.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function = getattr(owner, attribute)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if name == "removing the spool" and "spool" not in Path(args[0]).parts:
            return function(*args, **kwargs)  # a temporary folder of somebody's
        calls[name] += 1
        due = fault is not None and fault.at == name and fault.call == calls[name]
        if due and fault is not None and fault.when == "before":
            _die(fault)
        if due and fault is not None and fault.when == "half":
            _half(function, *args)
            _die(fault)
        result = function(*args, **kwargs)
        if due and fault is not None:
            _die(fault)
        return result

    setattr(owner, attribute, watched)


def _half(function: Callable[..., object], path: Path, data: bytes = b"", **kwargs: object) -> None:
    if path.is_dir():
        for file in [file for file in sorted(path.rglob("*")) if file.is_file()][::2]:
            file.unlink()
    else:
        function(path, data[: len(data) // 2])


def _die(fault: Fault) -> None:
    os.write(2, f"killed {fault.when} call {fault.call} of {fault.at}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


class Nursery:
    """The other side of `serve`: starts trainings and tells how they ended."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        import subprocess

        root = Path(__file__).parent.parent
        self.pid = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": str(root)},
            cwd=root,
        )

    def start(self, order: Order) -> int:
        """The pid of a process that begins this training now."""
        Path(order.folder).mkdir(parents=True, exist_ok=True)
        to, _ = self._pipes()
        to.write(json.dumps(asdict(order)) + "\n")
        to.flush()
        self.pid = int(self._told(300)["pid"])
        return self.pid

    def code(self, timeout: float = 600) -> int:
        """How the training ended: its exit code, or minus the signal that killed it. Raises TimeoutError where it does not end."""
        return int(self._told(timeout)["code"])

    def run(self, order: Order) -> int:
        self.start(order)
        return self.code()

    def close(self) -> None:
        to, out = self._pipes()
        to.close()
        self._process.wait(60)
        out.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _told(self, timeout: float) -> dict[str, Any]:
        import select

        _, out = self._pipes()
        if not select.select([out], [], [], timeout)[0]:
            raise TimeoutError(f"the training did not end within {timeout:.0f} s")
        line = out.readline()
        assert line, "the nursery ended"
        told: dict[str, Any] = json.loads(line)
        return told


def newest(files: Iterable[Path]) -> Path | None:
    """The checkpoint of the last epoch, which is its name."""
    return max(files, key=lambda path: int(path.stem), default=None)
