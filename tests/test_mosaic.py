"""Four images around a crossing point."""

from itertools import product

import pytest
import torch
from torch import nn

from skgcm.network import GCM
from skgcm.training import mosaic

sizes = pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (8, 8), (33, 20)], ids=str)
numbers = pytest.mark.parametrize("n_images", [1, 2, 3, 4, 5, 8, 13])


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _colours(n_images, size):
    """Images of one colour each, and their numbers as labels."""
    labels = torch.arange(n_images)
    return (labels[:, None, None, None] + torch.tensor([0.0, 0.5])[:, None, None]).expand(-1, -1, *size), labels


@sizes
@numbers
def test_regions_partition_a_mosaic_and_labels_belong_to_parts(size, n_images):
    images, labels = _colours(n_images, size)
    for seed in range(5):
        made, regions, of_parts = mosaic.make_mosaics(images, labels, _generator(seed))
        n_mosaics = -(-n_images // 4)
        assert made.shape == (n_mosaics, 2, 2 * size[0], 2 * size[1])
        assert regions.shape == (n_mosaics, 4, 2 * size[0], 2 * size[1])
        assert of_parts.shape == (4 * n_mosaics,)
        assert made.dtype == images.dtype
        assert regions.dtype == torch.float32
        assert torch.equal(regions.unique(), torch.tensor([0.0, 1.0]))
        assert (regions.sum(1) == 1).all()
        assert (regions.sum((2, 3)) > 0).all()
        shown = (regions * of_parts.view(n_mosaics, 4, 1, 1)).sum(1)
        assert torch.equal(made, shown[:, None] + torch.tensor([0.0, 0.5])[:, None, None])


@sizes
def test_parts_are_rectangles_around_one_point_not_far_from_the_middle(size):
    images, labels = _colours(8, size)
    points = set()
    for seed in range(60):
        _, regions, _ = mosaic.make_mosaics(images, labels, _generator(seed))
        assert (regions == regions[:1]).all()  # at the same places in all mosaics of a batch
        rows, columns = (int(regions[0, 0].any(axis).sum()) for axis in (1, 0))
        points.add((rows, columns))
        expected = torch.zeros_like(regions[0])
        for part, (low, left) in enumerate(product((False, True), repeat=2)):
            at_rows = slice(rows, None) if low else slice(None, rows)
            expected[part, at_rows, slice(columns, None) if left else slice(None, columns)] = 1
        assert torch.equal(regions[0], expected)
        for found, side in zip((rows, columns), size, strict=True):
            assert abs(found - side) <= mosaic.JITTER * side
    assert len(points) > 1 or max(size) * mosaic.JITTER < 1


@numbers
def test_each_image_has_a_part_before_any_has_two(n_images):
    images, labels = _colours(n_images, (4, 4))
    _, _, of_parts = mosaic.make_mosaics(images, labels, _generator())
    assert of_parts.tolist() == [i % n_images for i in range(len(of_parts))]


def test_a_part_is_a_crop_of_its_image_or_the_whole_image_with_reflected_borders():
    images = torch.arange(4 * 8 * 12.0).view(4, 1, 8, 12)
    kinds = set()
    for seed in range(40):
        made, regions, _ = mosaic.make_mosaics(images, torch.arange(4), _generator(seed))
        for part in range(4):
            rows, columns = (regions[0, part].any(axis).nonzero()[:, 0] for axis in (1, 0))
            shown = made[0, 0, rows[:, None], columns]
            for axis, size in ((0, 8), (1, 12)):  # rows go up by 12 a step, columns by 1
                places = (shown - shown.min()).amin(1 - axis) / (12 if axis == 0 else 1)
                steps = places.diff().abs()
                assert (steps == 1).all()  # mirrored without repeating the border
                assert len(places.unique()) == min(len(places), size)
                kinds.add(len(places) > size)
            assert ((shown // 96) == part).all()
    assert kinds == {False, True}


def test_mosaics_come_from_the_generator_and_from_it_alone():
    images, state = torch.rand(8, 3, 9, 9, generator=_generator(1)), torch.get_rng_state()
    one, two, other = (mosaic.make_mosaics(images, torch.arange(8), _generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("architecture", ["multiscale", "paper"])
def test_running_statistics_are_frozen_for_mosaics_and_not_for_plain_batches(architecture):
    network = GCM(3, architecture=architecture, generator=_generator()).train()
    images = torch.rand(8, 3, 8, 8, generator=_generator())
    means = {name: x.clone() for name, x in network.named_buffers() if name.endswith("running_mean")}
    made, regions, _ = mosaic.make_mosaics(images, torch.zeros(8), _generator())
    with mosaic.frozen_running_stats(network):
        network(made, regions)
    assert all(torch.equal(means[name], x) for name, x in network.named_buffers() if name in means)
    network(images)
    assert not any(torch.equal(means[name], x) for name, x in network.named_buffers() if name in means)


def test_statistics_move_again_after_an_error():
    network = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3))
    with pytest.raises(KeyError), mosaic.frozen_running_stats(network):
        raise KeyError
    assert network[0].momentum == 0.3
