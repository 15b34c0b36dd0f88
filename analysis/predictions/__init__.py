"""What a network says of the probe: scores of each class, and what became of each input."""

from netlapse.analysis.predictions.analysis import predictions
from netlapse.analysis.predictions.history import KINDS, History, extended
from netlapse.analysis.predictions.scores import ClassScores, class_scores

__all__ = ["KINDS", "ClassScores", "History", "class_scores", "extended", "predictions"]
