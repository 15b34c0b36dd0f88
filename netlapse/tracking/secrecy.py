"""What nobody but the server is to read: passwords and tokens, kept out of logs, messages, tags and files."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_USER = re.compile(
    r"(?<=://)(?:"
    r"[^/?#\s'\"<>]*@"  # http://user:password@host
    # A password that should have been escaped, http://user:pa/ss@host: what stands before the slash is no port.
    r"|[^/?#\[@\s'\"<>]*:[^/?#\s'\"<>]*[^\d/?#\s'\"<>][^\s'\"<>]*@)"
)
_QUERY = re.compile(
    r"((?<=[?&;])(?:\w*password|passwd|pwd|\w*token|\w*secret|\w*api_?key|\w*access_?key)=)[^&;\s'\"<>]+"
    r"|((?<=%3B)pwd%3D)(?:(?!%3B)[^&\s'\"<>])+",  # escaped, as in an ODBC connection string
    re.IGNORECASE,
)


def scrubbed(text: str) -> str:
    """The text without the users and passwords of the addresses in it; `?password=` and its like keep only their names.

    What is left of an address leads to the same place.
    """
    return _QUERY.sub(lambda found: f"{found[1] or found[2]}***", _USER.sub("", text))


@contextmanager
def discreet() -> Iterator[None]:
    """What is raised inside tells no secrets: the address of a call stands in the messages of MLflow and requests.

    The error is the same one, with its message scrubbed; a ConnectionError where its message cannot be changed.
    """
    try:
        yield
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        if scrubbed(told) == told:
            raise
        message = scrubbed(str(error))
        error.args = tuple(scrubbed(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(getattr(error, "message", None), str):
            error.message = message  # type: ignore[attr-defined]  # MLflow's errors have one
        if str(error) != message:
            raise ConnectionError(message) from None
        raise error from None  # its causes tell the address too


def brief(error: BaseException) -> str:
    """An error in one line, without secrets."""
    message = scrubbed(str(error))  # before it is cut: half an address is not recognised
    return f"{type(error).__name__}: {message.splitlines()[0][:300] if message else ''}"
