"""A training of several processes as one job of a sweep.

Lightning starts the others with the command line of the first: in a sweep that is the command of all jobs, and of a launcher's worker
it is none of ours. And it leaves its variables and process group behind, in which the next job of the same process would wait for
processes that are gone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import distributed

_LEFT_BEHIND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONPATH")


@contextmanager
def one_job(command: Sequence[str]) -> Iterator[None]:
    """Within it other processes are started with these words for `train.py`; after it, the process is as it was."""
    main, root = sys.modules["__main__"], str(Path(__file__).resolve().parents[2])
    words, spec, before = sys.argv, main.__spec__, {name: os.environ.get(name) for name in _LEFT_BEHIND}
    sys.argv, main.__spec__ = [words[0], *command], importlib.util.find_spec("netlapse.cli")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, before["PYTHONPATH"]]))  # for a clone that is not installed
    try:
        yield
    finally:
        sys.argv, main.__spec__ = words, spec
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
