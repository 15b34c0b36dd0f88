"""What running many trainings at once saves, and what summing up a large sweep takes: wall seconds of whole commands.

Run with `python -m benchmarks.sweeps`. Eight trainings of the digits one after the other and by joblib in two processes, in turn,
short and longer ones; and the tables, pictures and the page of a sweep of 100 runs of 20 epochs, made anew by the command that finds
nothing left to run.
`python -m benchmarks.sweeps FOLDER` sums up the sweep whose record is in FOLDER instead of training one.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, table

ROOT = Path(__file__).parent.parent
DIGITS = ("data=digits", "trainer.progress=false", f"seed={','.join(map(str, range(8)))}", "summaries=none")
HUNDRED = ("experiment=robustness", "data=digits", "trainer.max_epochs=20", "trainer.progress=false", "seed=range(100)")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def swept(folder: str, *words: str) -> float:
    """Wall seconds of a sweep with its records in a folder. Raises RuntimeError where a job of it fails."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, "tracker=folder", f"tracker.folder={folder}"]
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        ended = subprocess.run(command, env=os.environ | {"NETLAPSE_HOME": home}, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return time.perf_counter() - started


def launchers(epochs: int, repeats: int) -> Row:
    seconds: dict[str, list[float]] = {"basic": [], "joblib": []}
    for _ in range(repeats):
        for name, words in {"basic": (), "joblib": JOBLIB}.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(swept(f"{folder}/sweep", *DIGITS, f"trainer.max_epochs={epochs}", *words))
    basic, joblib = (median(each) for each in seconds.values())
    return Row(f"8 trainings of {epochs} epochs, one by one, s", basic, joblib, "2 processes of joblib", 1.6, "ratio", at_least=True)


def summary(folder: str) -> list[Row]:
    """Of a sweep that is through; its peak is that of the largest process begun here, so nothing larger may have been."""
    seconds = swept(folder, *HUNDRED, f"resume={folder}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of kB
    size = sum(file.stat().st_size for file in Path(folder).rglob("*.npz")) / 1e6
    runs = len(json.loads((Path(folder) / "manifest.json").read_text())["sweep"]["jobs"])
    return [
        Row(f"summing up {runs} runs x 20 steps, s", seconds, size, "MB of findings", 60.0),
        Row("its peak, GiB", peak, size / 1e3, "GB of findings", 2.0),
    ]


def main(folders: list[str]) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as made:
        if not folders:
            swept(f"{made}/sweep", *HUNDRED, *JOBLIB, "summaries=none")
        rows += summary(folders[0] if folders else f"{made}/sweep")
    if not folders:
        rows += [launchers(10, 3), launchers(30, 1)]  # the default, of 6 s each, which each process begins with imports of 8 s; and longer ones
    print(table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(not all(row.ok for row in main(sys.argv[1:])))
