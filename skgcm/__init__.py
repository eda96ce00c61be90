"""An image classifier that shows its evidence."""

from skgcm._version import __version__ as __version__
from skgcm.classifier import GCMClassifier
from skgcm.explanation import Explanation
from skgcm.files.safetensors_file import ModelFileError
from skgcm.plotting.display import ContributionDisplay
from skgcm.report.report import Report

__all__ = ["ContributionDisplay", "Explanation", "GCMClassifier", "ModelFileError", "Report"]
