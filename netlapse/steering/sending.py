"""Sending a command to a training, and waiting for what becomes of it."""

from __future__ import annotations

import getpass
import socket
import time
import uuid

from netlapse.steering.boxes import Box
from netlapse.steering.commands import parse
from netlapse.steering.orders import TAKEN, Answer, Order, Written, next_sequence, now, read_answers

ASK_SECONDS = 0.5
"""Between two looks for an answer."""


def send(box: Box, command: str, *, seconds: float | None = 60.0) -> Answer | None:
    """Send a command, and return what the training answers.

    seconds  how long an answer is waited for; None: it is not, and None returned

    Raises ValueError, and sends nothing, for a command that is none and where no training listens or the last one is over. Raises TimeoutError
    where no answer came; the command stays, and is taken when the training comes to it. Of two that are sent at one moment with one number
    the training takes the first, and the other is sent again by whoever waits for its answer.
    """
    parse(command)
    ends = None if seconds is None else time.monotonic() + seconds
    while True:
        order = _sent(box, command)
        if ends is None:
            return None
        answer = _answer(box, order, ends, seconds or 0.0)
        if not (answer.state == "refused" and answer.message.startswith(TAKEN)):
            return answer


def _sent(box: Box, command: str) -> Order:
    entries = box.read()
    if (why := _deaf(read_answers(entries))) is not None:
        raise ValueError(f"run {box.address} takes no commands: {why}")
    order = Order(next_sequence(entries), command.strip(), box.run, now(), _who(), uuid.uuid4().hex[:8])
    box.write(order.entry)
    return order


def _deaf(written: Written) -> str | None:
    if written.state is None:
        return "no training listens to it; train with a SteeringCallback, as ./run train does (steer=true), and send again once it has begun"
    return "its training is over" if written.state == "over" else None


def _answer(box: Box, order: Order, ends: float, seconds: float) -> Answer:
    while True:
        written = read_answers(box.read())
        for answer in written.answers:
            if answer.id == order.id:
                return answer
        if written.state == "over":
            box.delete(order.key)
            raise ValueError(f"run {box.address} did not take {order.text!r}: its training ended meanwhile")
        if time.monotonic() >= ends:
            raise TimeoutError(
                f"run {box.address} did not answer {order.text!r} (number {order.sequence}) within {seconds:g} s: it may be validating or observing, "
                "or its process or its server is gone; the command stays, and is taken at the end of the batch that the training comes to next"
            )
        time.sleep(ASK_SECONDS)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user of a container without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
