"""What it costs that a training can be steered, and how long a command takes from being sent to having been done.

Run with `OMP_NUM_THREADS=1 python -m benchmarks.steering`; `--short` takes a minute, and is for trying it out. The MLflow server, the training and
whoever sends are processes of this machine. Costs: of the callback where nothing has arrived, per batch; of the thread that looks, as processor time
of it in the time of the training. The delay is judged as the tracking design promises it: one batch and two seconds, of the worst command.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, table

BATCH_SECONDS = 0.02
"""Of the training whose delays are measured; its batches are sleeps, so that the server has the machine for itself."""


def per_batch(calls: int) -> tuple[float, float]:
    """Nanoseconds of a batch's end where nothing has arrived, and of the same call of a callback that does nothing."""
    import pytorch_lightning as pl

    from netlapse.backends.torch_processes import Processes
    from netlapse.callbacks.lightning_steering import SteeringCallback
    from netlapse.tracking.folder import FolderTracker

    with tempfile.TemporaryDirectory() as folder:
        callback = SteeringCallback(FolderTracker(folder))
        trainer, module = pl.Trainer(logger=False, enable_checkpointing=False), pl.LightningModule()
        callback._open(trainer)
        callback._processes = Processes()
        times: dict[str, list[float]] = {"steering": [], "nothing": []}
        for _ in range(9):
            for name, end in (("steering", callback.on_train_batch_end), ("nothing", pl.Callback().on_train_batch_end)):
                call: Callable[..., object] = end
                began = time.perf_counter()
                for _ in range(calls):
                    call(trainer, module, None, None, 0)
                times[name].append((time.perf_counter() - began) / calls * 1e9)
        callback._close()
    return median(times["steering"]), median(times["nothing"])


class Spent:
    """Processor seconds of all threads that look for commands, as they end."""

    def __init__(self) -> None:
        from netlapse.steering.inbox import Inbox

        self.seconds, self._work = 0.0, Inbox._work
        spent = self

        def measured(own: Inbox) -> None:
            began = time.thread_time()
            spent._work(own)
            spent.seconds += time.thread_time() - began

        Inbox._work = measured  # type: ignore[method-assign]


def share(uri: str, epochs: int) -> float:
    """Of the default training's wall time: what its thread takes, and its batches' looks at the queue."""
    from netlapse.callbacks.lightning import ObserverCallback
    from netlapse.callbacks.lightning_steering import SteeringCallback
    from netlapse.data import mnist5000
    from netlapse.models.torch import cnn
    from netlapse.probe import from_data
    from netlapse.tracking.mlflow import MlflowTracker
    from netlapse.training.lightning import fit, seed_everything

    data, spent = mnist5000(), Spent()
    seed_everything(0)
    network = cnn(data.input_shape, data.n_classes, channels=(32, 64, 128), hidden=128, dropout=0.25)
    tracker = MlflowTracker(uri=uri)
    observer = ObserverCallback(from_data(data, per_class=20), tracker=tracker, module="network")
    began = time.perf_counter()
    fit(network, data, callbacks=[observer, SteeringCallback(tracker)], max_epochs=epochs, metrics=tracker.metrics, progress=False)
    wall = time.perf_counter() - began
    tracker.finish()
    return spent.seconds / wall


def delays(uri: str, commands: int) -> list[float]:
    """Seconds from sending a command to its being done, of so many at random moments."""
    import numpy as np
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from netlapse.callbacks.lightning_steering import SteeringCallback
    from netlapse.steering.orders import read_answers
    from netlapse.steering.sending import send
    from netlapse.tracking.mlflow import MlflowTracker
    from netlapse.tracking.tags import TagBox

    done: dict[float, float] = {}
    over = threading.Event()

    class Slow(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            over.wait(BATCH_SECONDS)
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            done.setdefault(rate, time.monotonic())
            loss: torch.Tensor = self.layer(batch[0]).sum()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    tracker = MlflowTracker(uri=uri)
    box, found, sent = TagBox(tracker.run_id, uri), np.random.default_rng(0), dict[float, float]()

    def person() -> None:
        while read_answers(box.read()).state != "training":
            time.sleep(0.1)
        for number in range(1, commands + 1):
            time.sleep(found.uniform(0, 2))
            rate = number * 1e-6
            sent[rate] = time.monotonic()
            send(box, f"lr={rate!r}")
        send(box, "stop")

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=-1, callbacks=[SteeringCallback(tracker)], accelerator="cpu", **quiet)
    trainer.fit(Slow(), DataLoader(TensorDataset(torch.zeros(400, 2)), 4))
    thread.join(60)
    tracker.finish()
    return [done[rate] - began for rate, began in sent.items()]


def main(short: bool) -> list[Row]:
    import os

    from netlapse.steering.inbox import POLL_SECONDS
    from tests.servers import mlflow_server

    steering, nothing = per_batch(20_000 if short else 200_000)
    rows = [Row("a batch's end where nothing arrived, ns", steering, nothing, "a callback that does nothing", 10_000)]
    with tempfile.TemporaryDirectory() as home:
        os.environ["NETLAPSE_HOME"] = home
        with mlflow_server(Path(home)) as server:
            stores = {"a server": server.uri, "an sqlite store": f"sqlite:///{home}/mlflow.db"}
            for name, uri in stores.items():
                used = share(uri, 1 if short else 10)
                rows.append(Row(f"looking into {name}, share of training", used, 0.01, "1 %", 0.01))
            waited = delays(server.uri, 3 if short else 30)
            most = POLL_SECONDS + BATCH_SECONDS
            rows.append(Row("from a command to its effect, worst, s", max(waited), median(waited), "their median", most + 0.25))
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main("--short" in sys.argv[1:])))
