"""What an MLflow run holds of points and pictures: asked for once, and only where something might be there already.

MLflow keeps two points and two pictures where the same key and step are logged twice, and cannot tell them apart.
"""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from mlflow import MlflowClient
from mlflow.entities import Metric

PNG, WEBP = ".png", "+compressed.webp"
_NAME = re.compile(r"(?P<stem>.+\+step\+-?\d+\+timestamp\+\d+\+(?P<id>[0-9a-f-]{36}))(\.png|\+compressed\.webp)")


@dataclass(frozen=True)
class Picture:
    """A picture under the name that MLflow's pages read its key and step from.

    stem  the name of its two files, without what tells them apart
    """

    stem: str

    @property
    def id(self) -> str:
        return self.stem[-36:]

    @property
    def slot(self) -> str:
        """Key and step."""
        return self.stem.rpartition("+timestamp+")[0]

    @property
    def files(self) -> tuple[str, str]:
        return self.stem + PNG, self.stem + WEBP


class Contents:
    """What one run holds, as far as it was ever needed.

    new  the run was made a moment ago: it holds nothing, and need not be asked
    """

    def __init__(self, client: MlflowClient, run_id: str, *, new: bool = False) -> None:
        self._client, self._run_id = client, run_id
        self.sending_numbers, self.sending_files = threading.Lock(), threading.Lock()
        """Held by who sends: what one thread is sending, another must not find missing."""
        self._files: dict[str, set[str]] | None = {} if new else None
        self._latest: dict[str, tuple[int, str]] | None = {} if new else None
        self._histories: dict[str, dict[int, set[str]]] = {}

    def forget_points(self) -> None:
        """What was sent may have arrived or not: the run is asked again."""
        self._latest = None
        self._histories.clear()

    def forget_files(self) -> None:
        """What was sent may have arrived or not: the run is asked again."""
        self._files = None

    # ---- points -----------------------------------------------------------------------------------------------------

    def take(self, points: Iterable[Metric], *, once: bool = False) -> list[Metric]:
        """The points that the run has not, which from now on it is taken to have.

        once  a point of the same key and step is the same, whatever its value

        A run is asked for its latest points, and for all points of a key only where an earlier step comes again.
        """
        batch: dict[tuple[str, int], set[str]] = {}
        taken = [point for point in points if self._took(point, batch.setdefault((point.key, point.step), set()), once)]
        for (key, step), values in batch.items():
            if key in self._histories:
                self._histories[key].setdefault(step, set()).update(values)
        return taken

    def _took(self, point: Metric, taken: set[str], once: bool) -> bool:
        value, latest = _stored(point.value), self._latest_points()
        step, known = latest.get(point.key, (None, ""))
        there = set(taken)
        if step is not None and point.step == step:
            there.add(known)
        if step is not None and point.step <= step and value not in there and not (once and there):
            there |= self._history(point.key).get(point.step, set())
        if value in there or (once and there):
            return False
        taken.add(value)
        if step is None or point.step >= step:
            latest[point.key] = (point.step, value)
        return True

    def _latest_points(self) -> dict[str, tuple[int, str]]:
        if self._latest is None:
            metrics = self._client.get_run(self._run_id).data.to_proto().metrics
            self._latest = {metric.key: (int(metric.step), _stored(metric.value)) for metric in metrics}
        return self._latest

    def _history(self, key: str) -> dict[int, set[str]]:
        if key not in self._histories:
            steps: dict[int, set[str]] = {}
            for point in self._client.get_metric_history(self._run_id, key):
                steps.setdefault(point.step, set()).add(_stored(point.value))
            self._histories[key] = steps
        return self._histories[key]

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def pictures(self, slot: str) -> list[Picture]:
        """Pictures of netlapse at one key and step, also half ones; what others log under the same key is theirs."""
        found = (_NAME.fullmatch(name) for name in self._at(slot))
        return [Picture(stem) for stem in sorted({match["stem"] for match in found if match and _is_ours(match["id"])})]

    def files(self, picture: Picture) -> list[str]:
        """Those of the picture's two files that the run has."""
        return [name for name in picture.files if name in self._at(picture.slot)]

    def has(self, picture: Picture) -> bool:
        return len(self.files(picture)) == len(picture.files)

    def add(self, picture: Picture) -> None:
        self._at(picture.slot).update(picture.files)

    def remove(self, picture: Picture) -> None:
        self._at(picture.slot).difference_update(picture.files)

    def _at(self, slot: str) -> set[str]:
        """The names of the files at one key and step."""
        if self._files is None:
            self._files = {}
            for item in self._client.list_artifacts(self._run_id, "images"):
                name = item.path.rpartition("/")[2]
                self._files.setdefault(name.rpartition("+timestamp+")[0], set()).add(name)
        return self._files.setdefault(slot, set())


def _is_ours(identifier: str) -> bool:
    """Whether the identifier is a digest of the picture; MLflow's own are random."""
    try:
        return UUID(identifier).version == 5
    except ValueError:
        return False


def _stored(value: float) -> str:
    """A value as a run keeps it: an infinite one becomes the largest there is, and NaN is equal to NaN."""
    if math.isnan(value):
        return "nan"
    return repr(max(-sys.float_info.max, min(sys.float_info.max, float(value))) + 0.0)
