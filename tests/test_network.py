import itertools

import pytest
import torch

from skgcm import mosaics
from skgcm.blocks import ConvBlock, NearestUp
from skgcm.network import GCM

VARIANTS = {
    "shared": {},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "unshared-clipped": {"shared_decoder": False, "clip_negative": True},
    "deconvolution": {"upsampling": "deconvolution"},
    "unshared-deconvolution": {"shared_decoder": False, "upsampling": "deconvolution"},
    "one-stage": {"n_stages": 1},
    "four-stages": {"n_stages": 4},
    "both": {"polarity": "both"},
    "both-unshared-clipped": {"polarity": "both", "shared_decoder": False, "clip_negative": True},
}
SIZES = [(1, 9), (8, 8), (28, 28), (33, 47)]
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(n_classes, n_channels, variant, dtype=torch.float64, **params):
    """A small network whose batch norm has seen data, so that evaluation and training mode differ."""
    params = {"encoder_width": 4, "decoder_width": 2, **VARIANTS[variant], **params}
    network = GCM(n_classes, n_channels, **params, generator=torch.Generator().manual_seed(0)).to(dtype)
    network(draw((8, n_channels, 16, 16), dtype, seed=1))
    return network.eval()


def draw(shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def contributions(network, images):
    """(B, N, D, R, C), equation (3) as it is written."""
    ccm = network.weight_maps(images)[:, :, None] * images[:, None]
    if network.dark_head is not None:
        ccm = ccm + network.weight_maps(images, dark=True)[:, :, None] * (1 - images[:, None])
    return ccm


def test_default_has_as_many_parameters_as_the_reconstruction():
    assert sum(p.numel() for p in GCM(10).parameters() if p.requires_grad) == 161_338


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("variant", ["shared", "unshared", "clipped"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("n_classes", "n_channels"), list(itertools.product((2, 10, 1000), (1, 3, 4))))
def test_score_is_the_mean_of_the_contributions_and_so_are_its_gradients(
    n_classes, n_channels, size, variant, dtype, tolerance
):
    network = make(n_classes, n_channels, variant, dtype)
    images = draw((2, n_channels, *size), dtype).requires_grad_()
    inputs = [images, *network.parameters()]

    scores = network(images)
    ccm = network.weight_maps(images)[:, :, None] * images[:, None]  # (B, N, D, R, C), equation (3) as it is written
    means = ccm.mean((2, 3, 4))
    assert scores.shape == (2, n_classes)
    assert (scores - means).abs().max() <= tolerance * means.abs().max()

    cotangent = draw(scores.shape, dtype, seed=2) - 0.5
    contracted = torch.autograd.grad(scores, inputs, cotangent)
    direct = torch.autograd.grad(means, inputs, cotangent)
    for one, other in zip(contracted, direct, strict=True):
        assert (one - other).abs().max() <= tolerance * max(g.abs().max() for g in direct)


@each_variant
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (33, 47)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_maps_have_the_size_of_the_image_and_average_to_the_scores(variant, size):
    network = make(3, 2, variant)
    images = draw((2, 2, *size))
    cwm = network.weight_maps(images)
    assert cwm.shape == (2, 3, *size)
    torch.testing.assert_close(contributions(network, images).mean((2, 3, 4)), network(images), atol=1e-12, rtol=0)
    assert (cwm.min() >= 0) == network.head.clip_negative


@each_variant
def test_chosen_maps_are_those_of_all_classes(variant):
    network, images = make(5, 3, variant), draw((4, 3, 9, 11))
    every = network.weight_maps(images)
    classes = torch.tensor([[0, 4], [2, 2], [3, 1], [4, 0]])
    rows = torch.arange(4)[:, None]
    torch.testing.assert_close(network.weight_maps(images, classes), every[rows, classes], atol=1e-13, rtol=0)

    scores, best, (cwm, *_), (mean, *_) = network.evidence(images, 2)
    torch.testing.assert_close(mean, every.mean(1), atol=1e-13, rtol=0)
    torch.testing.assert_close(network.evidence(images)[3][0], mean, atol=1e-13, rtol=0)
    torch.testing.assert_close(scores, network(images))
    torch.testing.assert_close(best, scores.topk(2).indices)
    torch.testing.assert_close(cwm, every[rows, best], atol=1e-13, rtol=0)


@each_variant
@pytest.mark.parametrize("size", [(9, 11), (8, 12)], ids=["odd", "even"])
def test_folding_changes_nothing(variant, size):
    network, images = make(5, 3, variant), draw((4, 3, *size))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = network.folded()
    torch.testing.assert_close(folded(images), network(images), atol=1e-12, rtol=0)
    torch.testing.assert_close(folded.weight_maps(images), network.weight_maps(images), atol=1e-12, rtol=0)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(dict(network.state_dict()), before, atol=0, rtol=0)


@pytest.mark.parametrize("groups", [1, 3])
def test_doubling_by_deconvolution_is_nearest_neighbour_and_convolution(groups):
    block = NearestUp(6, 9, groups=groups).double()
    torch.nn.init.normal_(block[0].weight, generator=torch.Generator().manual_seed(0))
    x = draw((2, 6, 5, 4)).requires_grad_()
    expected = ConvBlock.forward(block, torch.nn.functional.interpolate(x, size=(10, 8), mode="nearest"))
    found = block(x, (10, 8))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    inputs = [x, block[0].weight]
    gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


def test_unshared_decoders_do_not_see_each_other():
    network, images = make(3, 1, "unshared"), draw((2, 1, 12, 12))
    cwm = network.weight_maps(images)
    own = [0, 2 * 2]  # the first two rows of the first decoder layer belong to class 0
    with torch.no_grad():
        network.decoder.ups[0][0].weight[own[0] : own[1]] *= -1
    changed = (network.weight_maps(images) - cwm).abs().amax((0, 2, 3))
    assert changed[0] > 0
    assert changed[1:].max() == 0


def test_any_number_of_classes_reads_the_same_features():
    network = make(1000, 3, "shared", torch.float32)
    images = draw((2, 3, 32, 32), torch.float32)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            largest.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with Watch():
        network(images).logsumexp(1).sum().backward()
    # neither forward nor backward holds one map a class: 2 * 1000 * 32 * 32 numbers
    assert max(largest) < 1000 * 32 * 32 / 4


def test_masking_the_image_gives_the_score_of_a_region():
    network, images = make(4, 3, "shared"), draw((2, 3, 12, 12))
    mask = torch.zeros(12, 12, dtype=torch.float64)
    mask[3:9, 2:7] = 1
    features = network.features(images)
    part = network.head.scores(features, images.mean(1) * mask)
    maps = network.weight_maps(images) * images.mean(1, keepdim=True)
    torch.testing.assert_close(part, (maps * mask).mean((2, 3)), atol=1e-13, rtol=0)


def test_a_black_image_scores_exactly_zero():
    assert (make(3, 3, "shared")(torch.zeros(1, 3, 8, 8, dtype=torch.float64)) == 0).all()


def test_generator_decides_the_weights_and_the_global_one_is_left_alone():
    state = torch.get_rng_state()
    one, two, other = (GCM(3, 1, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_head_computes_in_the_dtype_of_the_images_under_autocast():
    network, images = make(3, 3, "shared", torch.float32), draw((2, 3, 16, 16), torch.float32)
    exact = network(images).detach()
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(images)
        ccm = network.weight_maps(images)[:, :, None] * images[:, None]
    assert scores.dtype == ccm.dtype == torch.float32
    torch.testing.assert_close(ccm.mean((2, 3, 4)), scores, atol=1e-5 * float(exact.abs().max()), rtol=0)
    assert not torch.equal(scores, exact)


def test_unknown_upsampling_is_named():
    with pytest.raises(ValueError, match=r"upsampling='cubic'.*nearest"):
        GCM(3, upsampling="cubic")


@each_variant
@pytest.mark.parametrize("size", [(5, 6), (8, 8)], ids=["odd", "even"])
def test_a_cell_of_a_mosaic_scores_the_mean_of_the_contributions_in_it(variant, size):
    network, images = make(4, 3, variant), draw((18, 3, *size))
    grids = mosaics.lay_out(images, 3)  # (2, 3, 3 R, 3 C)
    scores, magnitudes = network(grids, grid=3, magnitudes=True)
    ccm = mosaics.cut(contributions(network, grids).mean(2), 3, border=0)
    torch.testing.assert_close(scores, ccm.mean((2, 3)), atol=1e-13, rtol=0)
    torch.testing.assert_close(magnitudes, ccm.abs().mean((2, 3)), atol=1e-13, rtol=0)
    torch.testing.assert_close(mosaics.cut(grids, 3, border=0), images, atol=0, rtol=0)

    classes = torch.arange(36).reshape(18, 2) % 4
    chosen = network(grids, grid=3, magnitudes=True, classes=classes)[1]
    torch.testing.assert_close(chosen, magnitudes.gather(1, classes), atol=1e-13, rtol=0)


def test_dark_maps_that_are_not_there():
    with pytest.raises(ValueError, match="polarity"):
        make(3, 1, "shared").weight_maps(draw((1, 1, 8, 8)), dark=True)


@pytest.mark.parametrize("upsampling", ["nearest", "deconvolution"])
@pytest.mark.parametrize("size", [(1, 1), (9, 1), (5, 2), (7, 4)], ids=str)
def test_gradients_of_narrow_images_are_whole_in_bfloat16(size, upsampling):
    network = GCM(3, 1, upsampling=upsampling, generator=torch.Generator().manual_seed(0))
    images = torch.rand(16, 1, *size, generator=torch.Generator().manual_seed(1))
    used = [torch.full((n,), torch.nan) for n in (288, 4608, 9216, 18432, 36864) for _ in range(30)]
    del used  # what is not written has these in it
    with torch.autocast("cpu", torch.bfloat16):
        torch.nn.functional.cross_entropy(network(images), torch.arange(16) % 3).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
