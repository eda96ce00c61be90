"""Measures of maps, for maps of any method as arrays and callables, and reports of a classifier."""

from skgcm.metrics._location import energy_in_boxes, grid_pointing_game, pointing_game
from skgcm.metrics._perturbation import deletion_curve, insertion_curve
from skgcm.metrics._report import check_evidence, evidence_report
from skgcm.metrics._scores import additivity_error, decline_ratio

__all__ = [
    "additivity_error",
    "check_evidence",
    "decline_ratio",
    "deletion_curve",
    "energy_in_boxes",
    "evidence_report",
    "grid_pointing_game",
    "insertion_curve",
    "pointing_game",
]
