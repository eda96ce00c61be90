"""What users pass as arrays: PyTorch tensors and arrays of other libraries too, as NumPy arrays."""

import numpy as np
import torch


def as_numpy(array):
    """A tensor, on any device, with or without gradient, as an ndarray; a list of tensors as a list of ndarrays.

    An array of another library that follows the array API standard becomes an ndarray too. Anything else is returned
    unchanged.
    """
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()  # NumPy has no bfloat16
    if isinstance(array, list | tuple) and any(isinstance(item, torch.Tensor) for item in array):
        return [as_numpy(item) for item in array]
    if hasattr(array, "__array_namespace__") and not isinstance(array, np.ndarray | np.generic):
        return np.asarray(array)
    return array
