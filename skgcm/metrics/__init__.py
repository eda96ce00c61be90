"""How good are maps? On plain arrays and callables, for maps of any method."""

from skgcm.metrics._location import energy_in_boxes, grid_pointing_game, pointing_game
from skgcm.metrics._perturbation import deletion_curve, insertion_curve
from skgcm.metrics._scores import additivity_error, decline_ratio

__all__ = [
    "additivity_error",
    "decline_ratio",
    "deletion_curve",
    "energy_in_boxes",
    "grid_pointing_game",
    "insertion_curve",
    "pointing_game",
]
