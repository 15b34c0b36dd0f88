"""What a slow MLflow server costs an epoch: wall seconds of the default training's epochs, all default analyses at each.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.server`: one thread trains, so that the server, which in life is another machine,
has a core of its own. Between it and us each call waits for 200 ms. Trainings into it and into a local store take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, table

DELAY = 0.2
ROUNDS, EPOCHS = 3, 6


def epochs(uri: str) -> list[float]:
    """Seconds of each epoch of a training into a store; the first, in which everything is made, is left out."""
    import pytorch_lightning as pl

    from netlapse.callbacks.lightning import ObserverCallback
    from netlapse.data import mnist5000
    from netlapse.models.torch import cnn
    from netlapse.probe import from_data
    from netlapse.tracking.mlflow import MlflowTracker
    from netlapse.training.lightning import fit, seed_everything

    ends: list[float] = []

    class Clock(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            ends.append(time.perf_counter())

    data = mnist5000()
    seed_everything(0)
    network = cnn(data.input_shape, data.n_classes, channels=(32, 64, 128), hidden=128, dropout=0.25)
    tracker = MlflowTracker(uri=uri)
    observer = ObserverCallback(from_data(data, per_class=20), tracker=tracker, module="network")
    fit(network, data, callbacks=[observer, Clock()], max_epochs=EPOCHS, metrics=tracker.metrics, progress=False)
    tracker.finish()
    return [after - before for before, after in pairwise(ends)]


def slow_server(folder: str, found: multiprocessing.Queue[str], over: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    from tests.servers import mlflow_server, proxy

    with mlflow_server(Path(folder)) as server, proxy(server.uri, seconds=DELAY) as between:
        found.put(between.uri)
        over.wait()  # type: ignore[attr-defined]


def main() -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as home:
        os.environ["NETLAPSE_HOME"] = home
        found, over = context.Queue(), context.Event()
        process = context.Process(target=slow_server, args=(home, found, over))
        process.start()
        try:
            stores = {"slow": found.get(timeout=120), "local": f"sqlite:///{home}/mlflow.db"}
            seconds: dict[str, list[float]] = {name: [] for name in stores}
            for _ in range(ROUNDS):
                for name, uri in stores.items():
                    seconds[name] += epochs(uri)
        finally:
            over.set()
            process.join()
    row = Row("epoch, each call answered after 200 ms, s", median(seconds["slow"]), median(seconds["local"]), "local store", 1.05, "ratio")
    print(table([row]))
    return [row]


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
