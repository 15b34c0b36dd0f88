"""`./run steer run=<id> pause`: tells a training what to do, and prints what it answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from mlflow.exceptions import MlflowException

from netlapse.steering.boxes import box_at
from netlapse.steering.commands import parse
from netlapse.steering.orders import Answer
from netlapse.steering.sending import send
from netlapse.tracking.secrecy import brief, discreet, scrubbed
from netlapse.tracking.store import silence
from netlapse.tracking.store import tracking_uri as usual
from netlapse.tracking.tags import TagBox

USAGE = (
    "usage: ./run steer run=<id or folder> [wait=60] pause | resume | stop | checkpoint | observe | lr=0.01 | weight_decay=0.001 | "
    "class_weight.3=2.0 | 'penalise.3->5=2.0'   (several are sent one after another; wait=0 waits for no answer)"
)


def steer(run: str, command: str, tracking_uri: str | None = None, *, wait: float | None = 60.0) -> Answer | None:
    """Tell the training of a run what to do; returns what it answers, or None where nobody waits for that.

    run      the id of an MLflow run, or the folder of a record
    command  see `netlapse.steering.commands`
    wait     seconds to wait for the answer, at most; None: it is sent, and not waited for

    Raises ValueError for a command that is none and a run to which no training listens, TimeoutError where no answer came, and as any use of the
    store ConnectionError or MlflowException.
    """
    parse(command)  # before anybody is asked for anything
    uri = tracking_uri or usual()
    with discreet():
        box = box_at(run, uri)
        if isinstance(box, TagBox) and (why := silence(uri)) is not None:
            raise ConnectionError(f"no MLflow server answers at {scrubbed(uri)} ({why}); nothing was sent")
        return send(box, command, seconds=wait)


def main(arguments: Sequence[str]) -> int:
    """Send the commands; 0 where all were done, 1 where one was refused, failed or not answered, which ends it, 2 where they are not understood."""
    options = dict(word.split("=", 1) for word in arguments if word.startswith(("run=", "wait=")))
    commands = [word for word in arguments if not word.startswith(("run=", "wait="))]
    try:
        wait = float(options.get("wait", 60))
        if "run" not in options or not commands or not 0 <= wait < math.inf:
            raise ValueError(USAGE)
        for command in commands:
            parse(command)
    except ValueError as error:
        print(f"netlapse: {error}", file=sys.stderr)
        return 2
    for command in commands:
        try:
            answer = steer(options["run"], command, wait=wait or None)
        except (ValueError, OSError, MlflowException) as error:
            print(f"netlapse: {brief(error) if isinstance(error, MlflowException) else error}", file=sys.stderr)
            return 1
        print(f"{command}: sent" if answer is None else answer.text, flush=True)
        if answer is not None and answer.state != "done":
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
