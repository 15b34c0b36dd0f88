"""Where a training left its own course: which layer, since when, in which of the numbers from inside."""

from netlapse.analysis.changes.analysis import changes
from netlapse.analysis.changes.courses import beyond_level, beyond_line, beyond_others
from netlapse.analysis.changes.detection import Look, Window, looks, standing
from netlapse.analysis.changes.measures import apart, inside, rank, told_apart

__all__ = ["Look", "Window", "apart", "beyond_level", "beyond_line", "beyond_others", "changes", "inside", "looks", "rank", "standing", "told_apart"]
