"""Whom a network treats differently, since when, and in which layer."""

from netlapse.analysis.fairness.analysis import fairness
from netlapse.analysis.fairness.calibration import calibration_error, calibration_sums
from netlapse.analysis.fairness.counts import Disparities, disparities, gap_bound, group_counts, group_metrics, wilson
from netlapse.analysis.fairness.sampling import effective_sample_size, sampling_weights

__all__ = [
    "Disparities",
    "calibration_error",
    "calibration_sums",
    "disparities",
    "effective_sample_size",
    "fairness",
    "gap_bound",
    "group_counts",
    "group_metrics",
    "sampling_weights",
    "wilson",
]
