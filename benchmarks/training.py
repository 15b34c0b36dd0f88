"""What observing costs a training, and how long the first picture takes: wall seconds, with all threads, as a user has them.

Run with `python -m benchmarks.training`. The default `./run train` (ten epochs on mnist5000, observed at step 0 and after each),
beside the same with `callback=none`, in turn in one process; and a fresh `./run train` until its first picture is in the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, interleaved, table

ROOT = Path(__file__).parent.parent
REPEATS = 3


def trained(*overrides: str) -> None:
    """The default training, from the composed config to its end, without importing and loading anew."""
    import contextlib
    import io

    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from netlapse.cli import run_training

    GlobalHydra.instance().clear()
    with initialize_config_module("netlapse.conf", version_base="1.3"), contextlib.redirect_stdout(io.StringIO()):
        run_training(compose("train", overrides=["trainer.progress=false", *overrides]))


def first_picture() -> float:
    """Seconds from the start of `./run train` in a fresh store to the first whole picture in it."""
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(ROOT / "run"), "train", "trainer.progress=false"],
            env=os.environ | {"NETLAPSE_HOME": home},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not any(Path(home).glob("artifacts/*/*/artifacts/images/*.png")):
                if process.poll() is not None or time.perf_counter() - started > 300:
                    raise RuntimeError("the training ended, or 300 s passed, without a picture")
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


def main() -> list[Row]:
    rows = [Row("start to first picture, s", first_picture(), 60.0, "the target", 60.0)]
    with tempfile.TemporaryDirectory() as home:
        os.environ["NETLAPSE_HOME"] = home
        times = interleaved({"observed": trained, "bare": lambda: trained("callback=none")}, REPEATS, time.perf_counter)
    rows.append(Row("default training observed, s", times["observed"], times["bare"], "callback=none", 1.10, "ratio"))
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main()))
