"""What reanalysing saved checkpoints costs beside loading them and passing the probe through: CPU seconds of one thread.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.reanalysis`. Profiles of the default network at 20 checkpoints, into a new record in a
folder: every file checked against its sha256, every finding written, the time-lapse page drawn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Row, interleaved, table
from netlapse.analysis.nap import nap
from netlapse.backends.torch import TorchNetwork
from netlapse.backends.torch_files import load_weights
from netlapse.data import mnist5000
from netlapse.models.torch import cnn
from netlapse.observer import Observer
from netlapse.probe import from_data
from netlapse.reanalysis import reanalyse
from netlapse.tracking.checkpoints import sha256
from netlapse.tracking.folder import FolderTracker
from netlapse.types import ProbeSet

CHECKPOINTS, REPEATS = 20, 7


def measured(probe: ProbeSet, folder: Path) -> tuple[float, float]:
    """CPU seconds of a reanalysis of all checkpoints, and of the bare loads and forward passes."""
    torch.manual_seed(0)
    module = cnn((28, 28, 1), 10, channels=(32, 64, 128), hidden=128, dropout=0.25)
    files = {}
    for step in range(CHECKPOINTS):
        files[step] = folder / f"step_{step:08d}.pt"
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        torch.save(module.state_dict(), files[step])
    digests = {path: sha256(path) for path in files.values()}
    network, records = TorchNetwork(module), iter(range(1000))
    inputs = torch.from_numpy(np.array(np.moveaxis(probe.inputs, -1, 1), order="C"))

    def load(path: Path) -> None:
        assert sha256(path) == digests[path]
        load_weights(network, path)

    def ours() -> None:
        observer = Observer(probe, [nap], FolderTracker(folder / f"record{next(records)}"), strict=True)
        observer.start(network)
        reanalyse(observer, network, files, load)
        observer.finish()

    def bare() -> None:
        module.eval()
        with torch.inference_mode():
            for path in files.values():
                module.load_state_dict(torch.load(path, weights_only=True))
                for batch in inputs.split(64):
                    module(batch)

    times = interleaved({"ours": ours, "bare": bare}, REPEATS)
    return times["ours"], times["bare"]


def main() -> list[Row]:
    rows = []
    for per_class in (20, 100):
        with tempfile.TemporaryDirectory() as folder:
            ours, bare = measured(from_data(mnist5000(), per_class=per_class), Path(folder))
        rows.append(Row(f"profiles of 20 checkpoints, {10 * per_class} inputs, CPU s", ours, bare, "loads and forwards", 1.15, "ratio"))
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
