"""The GCM network in plain PyTorch, equations (1) to (7). It does not use scikit-learn or skorch."""

from skgcm.network.gcm import ARCHITECTURES, DEFAULTS, GCM, POLARITIES, UPSAMPLING

__all__ = ["ARCHITECTURES", "DEFAULTS", "GCM", "POLARITIES", "UPSAMPLING"]
