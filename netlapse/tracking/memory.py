"""Findings kept in memory: for notebooks and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from netlapse.recording import Recording, merged
from netlapse.tracking.folder import tabled
from netlapse.tracking.probes import PROBE
from netlapse.types import Findings, Tracker


class MemoryTracker:
    """A `netlapse.types.Tracker` that keeps everything as it was given."""

    def __init__(self) -> None:
        self.manifest: dict[str, object] = {}
        self.findings: dict[str, dict[int, Findings]] = {}
        self.documents: dict[str, str | bytes] = {}
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

    @classmethod
    def of(cls, record: Tracker) -> MemoryTracker:
        """What another record holds, to be looked at without holding it."""
        copy, recording = cls(), record.recording()
        copy.manifest = dict(record.manifest)
        copy.findings = {name: dict(by_step) for name, by_step in recording.findings.items()}
        copy.documents = {name: content for name in ("config.yaml", PROBE) if (content := record.read(name)) is not None}
        return copy

    def document(self, name: str, content: str | bytes) -> None:
        self.documents[name] = content

    def read(self, name: str) -> bytes | None:
        content = self.documents.get(name)
        return content.encode() if isinstance(content, str) else content

    def table(self, name: str, columns: Mapping[str, Sequence[object]]) -> None:
        self.document(f"{name}.json", tabled(columns))

    def fetch_checkpoints(self, folder: Path) -> Path | None:
        return None

    def failure(self, what: str, message: str) -> None:
        self.failures.append({"what": what, "message": message})

    def finish(self, *, failed: bool | None = False) -> None:
        self.manifest["failed"] = failed

    def close(self) -> None:
        pass

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
