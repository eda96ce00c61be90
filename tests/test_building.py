import numpy as np
import pytest

from skgcm import building


def test_seeds():
    assert building.draw_seed(3) == building.draw_seed(3)
    assert building.draw_seed(None) != building.draw_seed(None)
    state = np.random.RandomState(0)
    assert building.draw_seed(state) != building.draw_seed(state)


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match="device='tpu3' is not a device"):
        building.resolve_device("tpu3")
