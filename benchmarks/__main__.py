"""Run every benchmark, each in a process of its own, and write the table that the documentation shows: `./run bench`.

`./run bench layout nap` runs those only, and writes nothing.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
# name -> threads: one where CPU time of the process is measured, the user's own where it is wall time.
BENCHMARKS = {
    "nap": "1",
    "top": "1",
    "aligned": "1",
    "keras": "1",
    "reanalysis": "1",
    "layout": "1",
    "layouts": "1",
    "spread": "1",
    "motion": "1",
    "fullgrad": "1",
    "attributions": "1",
    "occlusion": "1",
    "render": "1",
    "debiasing": "1",
    "events": "1",
    "server": "1",
    "steering": "1",
    "training": None,
    "overhead": None,
    "sweeps": None,
}
RESULT = ROOT / "docs" / "benchmarks.md"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"no benchmark named {unknown}; there are {list(BENCHMARKS)}")
    tables, failed = [], []
    for name in names or BENCHMARKS:
        threads = BENCHMARKS[name]
        environment = os.environ | ({"OMP_NUM_THREADS": threads} if threads else {})
        result = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, env=environment, capture_output=True, text=True)
        print(result.stdout, result.stderr if result.returncode and not result.stdout else "", sep="", flush=True)
        tables.append(f"## {name}\n\n```text\n{result.stdout.strip()}\n```\n")
        failed += [name] if result.returncode else []
    if not names:
        RESULT.write_text(_header() + "\n".join(tables))
        print(f"written to {RESULT.relative_to(ROOT)}")
    if failed:
        print(f"targets missed in: {failed}")
    return len(failed)


def _header() -> str:
    from netlapse.observer import versions

    return (
        "# Benchmarks\n\n"
        "Made by `./run bench`: interleaved in one process, medians, each beside its floor or its peer. Seconds are CPU time of one thread;\n"
        "those of `server` are wall time with one, of `training`, `overhead` and `sweeps` with all of them. On a shared machine a ratio\n"
        "within a few percent of 1 is not distinguishable from it.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores. "
        f"{', '.join(f'{name} {version}' for name, version in versions().items())}.\n\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
