"""Names that others gave, of layers, groups, analyses, documents and runs, as names of files: none leaves its folder."""

from __future__ import annotations

import re
import zlib


def mlflow_key(name: str) -> str:
    """A name as MLflow and a folder take it as an image key or metric: letters, digits, `_-. /`, at most 120 characters.

    Names that had to be changed, among them all that would lead out of a folder, end in a checksum of the name itself,
    so that no two become one.
    """
    clean = re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name).replace("..", "__")
    clean = "/".join("_" if part == "." else part for part in clean.split("/") if part)
    return name if clean == name and 0 < len(name) <= 120 else f"{clean[:110]}-{zlib.crc32(name.encode()):08x}"


def plain_name(what: str, name: str) -> str:
    """The name, where it can be a folder's; raises ValueError for one that is more than letters, digits, `_` and `-`."""
    if not re.fullmatch(r"[A-Za-z0-9_\-]+", name):
        raise ValueError(f"{what} cannot be named {name!r}: it is the name of a folder; names are letters, digits, '_' and '-'")
    return name


def document_name(name: str, reserved: frozenset[str]) -> str:
    """The name, where it can be that of a document of a record.

    Raises ValueError for one that leads into another folder, is hidden, or is that of a file the record keeps itself.
    """
    if not re.fullmatch(r"[A-Za-z0-9_\-][A-Za-z0-9_\-. ]*", name) or name in reserved:
        raise ValueError(
            f"a document cannot be named {name!r}; names are letters, digits, '_', '-', and after the first of these also dots and spaces, "
            f"and none of {sorted(reserved)}"
        )
    return name
