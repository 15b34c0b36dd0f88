"""Findings kept in memory: for notebooks and tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from netlapse.recording import Recording, merged
from netlapse.types import Findings


class MemoryTracker:
    """A `netlapse.types.Tracker` that keeps everything as it was given."""

    def __init__(self) -> None:
        self.manifest: dict[str, object] = {}
        self.findings: dict[str, dict[int, Findings]] = {}
        self.documents: dict[str, str] = {}
        self.failures: list[dict[str, str]] = []
        self.points: list[tuple[str, int, float]] = []

    def start(self, manifest: Mapping[str, object]) -> None:
        self.describe(manifest)

    def describe(self, manifest: Mapping[str, object]) -> None:
        self.manifest = merged(self.manifest, manifest)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points += [(name, step, float(value)) for name, value in values.items()]

    def log(self, analysis: str, step: int, findings: Findings) -> None:
        self.findings.setdefault(analysis, {})[step] = findings

    def latest(self, analysis: str, before: int) -> Findings | None:
        earlier = [step for step in self.findings.get(analysis, {}) if step < before]
        return self.findings[analysis][max(earlier)] if earlier else None

    def recording(self) -> Recording:
        return Recording(self.manifest | {"failures": list(self.failures)}, {name: dict(by_step) for name, by_step in self.findings.items()})

    def document(self, name: str, text: str) -> None:
        self.documents[name] = text

    def failure(self, what: str, message: str) -> None:
        self.failures.append({"what": what, "message": message})

    def finish(self, *, failed: bool | None = False) -> None:
        self.manifest["failed"] = failed

    @property
    def steps(self) -> dict[str, set[int]]:
        return {name: set(by_step) for name, by_step in self.findings.items()}

    @property
    def checkpoint_folder(self) -> Path | None:
        """None: nothing is written."""
        return None

    @property
    def place(self) -> str:
        return "memory"
