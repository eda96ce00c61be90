"""Images of a batch laid out as grids."""

import pytest
import torch

from skgcm import mosaics
from skgcm.network import GCM


@pytest.mark.parametrize(
    ("n_images", "side", "n_grids"), [(5, 1, 5), (1, 1, 1), (1, 2, 2), (9, 3, 2), (18, 3, 2), (19, 3, 3)]
)
def test_each_image_has_its_own_cell_before_any_has_two(n_images, side, n_grids):
    cells = mosaics.filled(n_images, side)
    assert len(cells) == n_grids * side**2
    assert cells.tolist() == (list(range(n_images)) * len(cells))[: len(cells)]


def test_statistics_are_kept_in_mosaics_and_not_in_plain_batches():
    network = GCM(3, generator=torch.Generator().manual_seed(0)).train()
    means = {name: x.clone() for name, x in network.named_buffers() if name.endswith("running_mean")}
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with mosaics.statistics_kept(network):
        network(mosaics.lay_out(images, 2), grid=2)
    assert all(torch.equal(means[name], x) for name, x in network.named_buffers() if name in means)
    network(images)
    assert not any(torch.equal(means[name], x) for name, x in network.named_buffers() if name in means)


@pytest.mark.parametrize(("shape", "grid"), [((5, 5), 3), ((6, 4), 3), ((6, 6), 0), ((6, 6), -1)])
def test_images_that_have_no_such_cells(shape, grid):
    with pytest.raises(ValueError, match=rf"Images of {shape[0]} x {shape[1]} pixels have no grid={grid}"):
        GCM(2)(torch.zeros(2, 3, *shape), grid=grid)
