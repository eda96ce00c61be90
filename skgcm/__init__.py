"""An image classifier that shows its evidence."""

from skgcm.classifier import GCMClassifier
from skgcm.container import ModelFileError
from skgcm.display import ContributionDisplay
from skgcm.explanation import Explanation

__version__ = "0.1.0"
__all__ = ["ContributionDisplay", "Explanation", "GCMClassifier", "ModelFileError"]
