import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skgcm import GCMClassifier
from skgcm.network import GCM, head
from skgcm.network.blocks import ConvBlock, NearestUp

PAPER = {"architecture": "paper"}
VARIANTS = {
    "shared": {},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "unshared-clipped": {"shared_decoder": False, "clip_negative": True},
    "bright": {"polarity": "bright"},
    "one-stage": {"n_stages": 1},
    "one-stage-unshared": {"n_stages": 1, "shared_decoder": False},
    "two-stages": {"n_stages": 2},
    "four-stages": {"n_stages": 4},
    "five-stages": {"n_stages": 5},
    "encoder": {"encoder": "test_efficientnet"},
    "encoder-unshared-clipped": {"encoder": "test_convnext", "shared_decoder": False, "clip_negative": True},
    "encoder-bright": {"encoder": "test_resnet", "polarity": "bright"},
    "paper": PAPER,
    "paper-unshared": {**PAPER, "shared_decoder": False},
    "paper-clipped": {**PAPER, "clip_negative": True},
    "paper-deconvolution": {**PAPER, "upsampling": "deconvolution"},
    "paper-unshared-deconvolution": {**PAPER, "shared_decoder": False, "upsampling": "deconvolution"},
    "paper-both": {**PAPER, "polarity": "both"},
    "paper-both-unshared-clipped": {**PAPER, "polarity": "both", "shared_decoder": False, "clip_negative": True},
    "paper-one-stage": {**PAPER, "n_stages": 1},
    "paper-four-stages": {**PAPER, "n_stages": 4},
}
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (8, 8), (33, 47)]
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@torch.no_grad()
def make(n_classes, n_channels, variant, dtype=torch.float64, **params):
    """A small network that is as if trained: no parameter is zero, and evaluation and training mode differ."""
    params = {"encoder_width": 4, "decoder_width": 2, **VARIANTS[variant], **params}
    generator = torch.Generator().manual_seed(0)
    network = GCM(n_classes, n_channels, **params, generator=generator)
    for parameter in network.head.parameters():  # at first those of contrast and the biases are zero
        # of many channels each has a small weight: contributions that cancel have no digits left
        parameter.normal_(0, min(0.5, 2.5 / parameter[0].numel() ** 0.5), generator=generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.uniform_(-0.5, 0.5, generator=generator)
    network.to(dtype)(draw((8, n_channels, 16, 16), dtype, seed=1))
    return network.eval()


def draw(shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(found, expected, tolerance=1e-12):
    """Equal to a part of the largest value."""
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.detach().abs().max()), rtol=0)


def contributions(network, images):
    """(B, N, C, H, W), equation (3) as it is written."""
    ccm = network.weight_maps(images)[:, :, None] * images[:, None]
    if network.polarity == "both":
        ccm = ccm + network.weight_maps(images, dark=True)[:, :, None] * (1 - images[:, None])
    return ccm


def check_score_is_mean(network, images, tolerance):
    images.requires_grad_()
    inputs = [images, *network.parameters()]
    scores, means = network(images), network.contributions(images).mean((2, 3, 4))
    assert scores.shape == (len(images), network.n_classes)
    close(scores, means, tolerance)
    cotangent = draw(scores.shape, images.dtype, seed=2) - 0.5
    contracted, direct = (torch.autograd.grad(outputs, inputs, cotangent) for outputs in (scores, means))
    largest = max(gradient.abs().max() for gradient in direct)
    for one, other in zip(contracted, direct, strict=True):
        assert (one - other).abs().max() <= tolerance * largest


def test_the_paper_s_network_has_as_many_parameters_as_the_reconstruction():
    assert sum(p.numel() for p in GCM(10, architecture="paper").parameters() if p.requires_grad) == 161_338


# ---- the score is the mean of the contributions ----------------------------------------------------------------------


@each_variant
@each_size
def test_score_is_the_mean_of_the_contributions_and_so_are_its_gradients(variant, size):
    check_score_is_mean(make(3, 2, variant), draw((2, 2, *size)), 1e-12)


@pytest.mark.parametrize("variant", ["shared", "unshared", "clipped", "bright", "encoder", "paper", "paper-unshared"])
@pytest.mark.parametrize(("n_classes", "n_channels"), [(2, 1), (10, 4), (300, 3)])
def test_score_is_the_mean_for_any_number_of_classes_and_channels(variant, n_classes, n_channels):
    check_score_is_mean(make(n_classes, n_channels, variant), draw((2, n_channels, 5, 7)), 1e-12)


@each_variant
def test_score_is_the_mean_in_float32_to_rounding(variant):
    check_score_is_mean(make(3, 3, variant, torch.float32), draw((2, 3, 33, 47), torch.float32), 1e-5)


@each_variant
def test_score_is_the_mean_in_training_mode(variant):
    network = make(3, 2, variant).train()
    check_score_is_mean(network, draw((4, 2, 9, 10)), 1e-12)


@each_variant
@each_size
def test_contributions_are_the_weight_maps_times_the_image(variant, size):
    network, images = make(3, 2, variant), draw((2, 2, *size))
    found = network.contributions(images)
    assert found.shape == (2, 3, 2, *size)
    close(found, contributions(network, images))
    maps = [network.weight_maps(images, dark=dark) for dark in (False, True)[: network.head.n_polarities]]
    assert all(cwm.shape == (2, 3, *size) for cwm in maps)
    assert (min(cwm.min() for cwm in maps) >= 0) == network.head.clip_negative


@each_variant
def test_weight_maps_are_the_sum_of_enlarged_convolutions(variant):
    network, images = make(3, 2, variant), draw((2, 2, 13, 10))
    part, features = network.head, network.features(images)
    for dark in (False, True)[: part.n_polarities]:
        total = 0
        for weights, feature in zip([*part.kernels, part.bias], [*features, None], strict=True):
            if part.n_polarities == 2:
                common, contrast = weights.chunk(2)
                weights = common - head.CONTRAST * contrast if dark else common + head.CONTRAST * contrast
            if feature is None:
                total = total + weights[:, None, None]
                continue
            groups = feature.shape[1] // weights.shape[1]
            maps = F.conv2d(feature, weights, padding=weights.shape[-1] // 2, groups=groups)
            if maps.shape[2:] != (13, 10):
                maps = F.interpolate(maps, (13, 10), mode="bilinear", align_corners=False)
            total = total + maps
        close(network.weight_maps(images, dark=dark), total.relu() if part.clip_negative else total)


@each_variant
def test_chosen_maps_are_those_of_all_classes(variant):
    network, images = make(5, 3, variant), draw((4, 3, 9, 11))
    classes, rows = torch.tensor([[0, 4], [2, 2], [3, 1], [4, 0]]), torch.arange(4)[:, None]
    for dark in (False, True)[: network.head.n_polarities]:
        every = network.weight_maps(images, dark=dark)
        close(network.weight_maps(images, classes, dark=dark), every[rows, classes])
    close(network.contributions(images, classes), network.contributions(images)[rows, classes])


@each_variant
def test_evidence_is_the_scores_the_maps_and_their_mean_at_once(variant):
    network, images = make(5, 3, variant), draw((4, 3, 9, 11))
    every = torch.stack(
        [network.weight_maps(images, dark=dark) for dark in (False, True)[: network.head.n_polarities]], 1
    )
    rows, wanted = torch.arange(4)[:, None], torch.tensor([[0, 4], [2, 2], [3, 1], [4, 0]])
    best = network(images).argsort(dim=1, descending=True, stable=True)
    for asked, expected in ((None, torch.arange(5).expand(4, 5)), (2, best[:, :2]), (wanted, wanted)):
        scores, classes, cwm, mean = network.evidence(images, asked)
        close(scores, network(images))
        torch.testing.assert_close(classes, expected)
        close(cwm, every[rows, :, expected].transpose(1, 2))
        close(mean, every.mean(2))


# ---- parts of an image -----------------------------------------------------------------------------------------------


@each_variant
@pytest.mark.parametrize("size", [(5, 6), (8, 8), (1, 9)], ids=str)
def test_a_part_scores_the_mean_of_the_contributions_in_it(variant, size):
    network, images = make(4, 3, variant), draw((3, 3, *size))
    places = torch.randint(3, (3, *size), generator=torch.Generator().manual_seed(3))
    places[:, 0, :3] = torch.arange(3)  # each part has a pixel
    regions = F.one_hot(places, 3).permute(0, 3, 1, 2).double()  # (B, G, H, W)
    scores = network(images, regions)

    maps = network.head.weight_maps(network.features(images, regions), size)  # (B, P, N, H, W)
    ccm = (maps * network.intensities(images)[:, :, None]).sum(1)  # (B, N, H, W)
    if not network.standardises:
        close(ccm, network.contributions(images).mean(2))
    inside, n_pixels = regions[:, :, None], regions.sum((2, 3))[..., None]
    close(scores, ((ccm[:, None] * inside).sum((3, 4)) / n_pixels).flatten(0, 1))

    classes = torch.tensor([[3, 0, 0], [1, 2, 3], [2, 2, 0]])
    again, shown = network(images, regions, shown_classes=classes)
    close(again, scores)
    close(shown, ccm[torch.arange(3)[:, None], classes])
    again, shown = network(images, regions, shown=torch.tensor([2, 0]), shown_classes=classes[:2])
    close(again, scores)
    close(shown, torch.stack([ccm[2, classes[0]], ccm[0, classes[1]]]))


@each_variant
def test_the_whole_image_is_one_part(variant):
    network, images = make(4, 3, variant), draw((3, 3, 7, 9))
    close(network(images, torch.ones(3, 1, 7, 9, dtype=torch.float64)), network(images))
    classes = torch.tensor([[3, 0], [1, 1], [2, 3]])
    scores, shown = network(images, shown_classes=classes)
    close(scores, network(images))
    close(shown, network.contributions(images, classes).mean(2))


@each_variant
def test_gradients_of_parts_are_those_of_their_contributions(variant):
    network, images = make(12, 2, variant), draw((2, 2, 6, 7))
    regions = torch.zeros(2, 2, 6, 7, dtype=torch.float64)
    regions[:, 0, :, :4], regions[:, 1, :, 4:] = 1, 1
    parameters = list(network.parameters())

    def gradients(scores, shown):
        return torch.autograd.grad((scores * draw(scores.shape)).sum() + shown.square().sum(), parameters)

    classes = torch.tensor([[11, 3], [0, 7]])
    found = gradients(*network(images, regions, shown_classes=classes))
    maps = network.head.weight_maps(network.features(images, regions), (6, 7))
    ccm = (maps * network.intensities(images)[:, :, None]).sum(1)
    parts = torch.stack([x.mean((2, 3)) for x in (ccm[..., :4], ccm[..., 4:])], 1)
    expected = gradients(parts.flatten(0, 1), ccm[torch.arange(2)[:, None], classes])
    largest = max(gradient.abs().max() for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-12 * largest


# ---- large images ----------------------------------------------------------------------------------------------------

LARGE = {
    "shared": {},
    "bright": {"polarity": "bright"},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "encoder": {"encoder": "test_efficientnet"},
    "paper": PAPER,
    "paper-both": {**PAPER, "polarity": "both"},
    "paper-unshared": {**PAPER, "shared_decoder": False},
    "paper-clipped": {**PAPER, "clip_negative": True},
}
WIDTHS = {"encoder_width": 2, "decoder_width": 1}


def tiled(side, seed=0):
    """A frame (side, side) float32: a small pattern again and again, so that no sum is zero by chance."""
    pattern = np.random.default_rng(seed).random((32, 32), dtype=np.float32)
    return np.tile(pattern, (side // 32, side // 32))


def relative(scores, ccm):
    """Largest difference of scores (B, N) from the float64 means of maps (B, N, H, W), by the image's largest score."""
    exact = ccm.double().mean((2, 3))
    return float(((scores - exact).abs().amax(1) / exact.abs().amax(1)).max())


@pytest.mark.parametrize(
    ("variant", "side"),
    [
        *((variant, 512) for variant in LARGE),
        *((variant, 1024) for variant in ("shared", "unshared", "clipped", "encoder", "paper")),
        ("shared", 2048),
    ],
)
@torch.no_grad()
def test_score_is_the_mean_of_the_map_however_large_the_image(variant, side):
    network = make(2, 1, variant, torch.float32, **WIDTHS)
    images = torch.from_numpy(tiled(side))[None, None]
    assert relative(network(images), network.contributions(images)[:, :, 0]) <= 1e-6


@pytest.mark.parametrize("variant", LARGE)
@torch.no_grad()
def test_score_is_the_mean_for_parts_of_large_images_and_in_training(variant):
    network = make(2, 1, variant, torch.float32, **WIDTHS).train()
    network.head.bias.fill_(1)  # no score is near zero by chance
    images = torch.from_numpy(tiled(512))[None, None]
    regions = torch.zeros(1, 2, 512, 512)
    regions[:, 0, :300], regions[:, 1, 300:] = 1, 1
    maps = network.head.weight_maps(network.features(images, regions), (512, 512))
    ccm = (maps * network.intensities(images)[:, :, None]).sum(1)
    scores = network(images, regions)
    assert max(relative(scores[:1], ccm[..., :300, :]), relative(scores[1:], ccm[..., 300:, :])) <= 1e-6


@pytest.mark.parametrize("variant", LARGE)
def test_score_is_the_mean_for_a_classifier_of_large_images_and_of_whole_frames(variant):
    X = np.stack([tiled(512, seed) for seed in range(2)])
    X[1] *= 0.5
    params = {**WIDTHS, "n_stages": 3, "max_epochs": 1, "batch_size": 2, "precision": "float32", "device": "cpu"}
    params["encoder_weights"] = None
    clf = GCMClassifier(**params, **LARGE[variant], random_state=0).fit(X, [0, 1])
    with torch.no_grad():
        for parameter in clf.net_.network.head.parameters():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
        clf.net_.network.head.bias.fill_(1)  # no score is near zero by chance
    scores = clf.decision_function(X)
    for frames, options in ((X, {}), (np.tile(X[:1], (1, 2, 2)), {"any_size": True})):
        evidence = clf.explain(frames, "all", **options)
        ccm = torch.from_numpy(evidence.pixel_contributions)
        assert relative(torch.from_numpy(evidence.scores), ccm) <= 1e-6
        if not options:
            exact = ccm.double().mean((2, 3)).numpy()
            np.testing.assert_allclose(scores, exact[:, 1] - exact[:, 0], rtol=0, atol=1e-6 * np.abs(exact).max())


# ---- copies, memory, numbers -----------------------------------------------------------------------------------------


@each_variant
@pytest.mark.parametrize("size", [(9, 11), (8, 12)], ids=["odd", "even"])
def test_fusing_batch_norm_changes_nothing(variant, size):
    network, images = make(5, 3, variant), draw((4, 3, *size))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    fused = network.fused()
    assert network.training
    network.eval()
    assert not fused.training
    close(fused(images), network(images))
    close(fused.contributions(images), network.contributions(images))
    parts = fused.decoder if "encoder" in variant else fused  # other people's modules stay as they are
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in parts.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with torch.no_grad():  # it shares no memory with the network
        for parameter in fused.parameters():
            parameter.zero_()
    torch.testing.assert_close(dict(network.state_dict()), before, atol=0, rtol=0)


@pytest.mark.parametrize("groups", [1, 3])
def test_doubling_by_deconvolution_is_nearest_neighbour_and_convolution(groups):
    block = NearestUp(6, 9, groups=groups).double()
    torch.nn.init.normal_(block[0].weight, generator=torch.Generator().manual_seed(0))
    x = draw((2, 6, 5, 4)).requires_grad_()
    expected = ConvBlock.forward(block, F.interpolate(x, size=(10, 8), mode="nearest"))
    found = block(x, (10, 8))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    inputs = [x, block[0].weight]
    gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("variant", ["unshared", "paper-unshared"])
def test_unshared_decoders_do_not_see_each_other(variant):
    network, images = make(3, 1, variant), draw((2, 1, 12, 12))
    cwm = network.weight_maps(images)
    up = network.decoder.ups[0]
    weight = up.weight if variant == "unshared" else up[0].weight
    with torch.no_grad():
        weight[: len(weight) // 3] *= -1  # of class 0
    changed = (network.weight_maps(images) - cwm).abs().amax((0, 2, 3))
    assert changed[0] > 0
    assert changed[1:].max() == 0


class Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """The size of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        tensors = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.largest = max([self.largest, *(t.untyped_storage().nbytes() // t.element_size() for t in tensors)])
        return out


@pytest.mark.parametrize("variant", ["shared", "bright", "four-stages", "encoder", "paper", "paper-both"])
def test_a_thousand_classes_build_no_map_of_each(variant):
    network, images = make(1000, 3, variant, torch.float32), draw((2, 3, 32, 32), torch.float32)
    regions = torch.zeros(2, 2, 32, 32)
    regions[:, 0, :20], regions[:, 1, 20:] = 1, 1
    classes = torch.arange(4).reshape(2, 2)
    with Watch() as watch:
        network(images).logsumexp(1).sum().backward()
        scores, shown = network(images, regions, shown_classes=classes)
        (scores.logsumexp(1).sum() + shown.relu().sum()).backward()
        network.evidence(images, 3)
    # neither forward nor backward holds one map a class: 2 * 1000 * 32 * 32 numbers
    weights = max(parameter.numel() for parameter in network.parameters())
    assert watch.largest <= max(weights, 1000 * 32 * 32 / 4)


@pytest.mark.parametrize("variant", ["bright", "encoder-bright", "paper", "paper-clipped"])
def test_a_black_image_scores_exactly_zero(variant):
    network = make(3, 3, variant)
    assert (network(torch.zeros(1, 3, 8, 8, dtype=torch.float64)) == 0).all()
    images = draw((1, 3, 8, 8))
    images[..., :4] = 0
    assert (network.contributions(images)[..., :4] == 0).all()


@pytest.mark.parametrize("variant", ["shared", "paper-both"])
def test_dark_pixels_contribute_with_polarity_both(variant):
    assert (make(3, 3, variant)(torch.zeros(1, 3, 8, 8, dtype=torch.float64)) != 0).all()


@pytest.mark.parametrize("variant", ["shared", "encoder", "paper"])
def test_generator_decides_the_weights_and_the_global_one_is_left_alone(variant):
    state = torch.get_rng_state()
    one, two, other = (
        GCM(3, 1, **VARIANTS[variant], generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0)
    for name, parameter in one.named_parameters():
        if parameter.std() > 0:
            assert not torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize("variant", ["shared", "encoder", "encoder-bright", "paper"])
def test_the_scores_of_a_new_network_are_finite_and_of_order_one(variant):
    network = GCM(10, **VARIANTS[variant], generator=torch.Generator().manual_seed(0))
    scores = network(draw((32, 3, 32, 32), torch.float32))
    assert 0.01 < scores.std() < 10


@pytest.mark.parametrize("variant", ["shared", "unshared", "clipped", "encoder", "paper", "paper-both"])
def test_head_computes_in_the_dtype_of_the_images_under_autocast(variant):
    network, images = make(3, 3, variant, torch.float32), draw((2, 3, 16, 16), torch.float32)
    exact = network(images).detach()
    with torch.autocast("cpu", torch.bfloat16):
        scores, ccm = network(images), network.contributions(images)
        _, shown = network(images, shown_classes=torch.tensor([[0], [2]]))
    assert scores.dtype == ccm.dtype == shown.dtype == torch.float32
    close(ccm.mean((2, 3, 4)), scores, 1e-5)
    close(shown, ccm.mean(2)[[0, 1], [0, 2]][:, None], 1e-5)
    assert not torch.equal(scores, exact)


@pytest.mark.parametrize("variant", ["shared", "four-stages", "paper", "paper-deconvolution"])
@pytest.mark.parametrize("size", [(1, 1), (9, 1), (5, 2), (7, 4)], ids=str)
def test_gradients_of_narrow_images_are_whole_in_bfloat16(size, variant):
    network = GCM(3, 1, **VARIANTS[variant], generator=torch.Generator().manual_seed(0))
    images = draw((16, 1, *size), torch.float32, seed=1)
    used = [torch.full((n,), torch.nan) for n in {p.numel() for p in network.parameters()} for _ in range(30)]
    del used  # what is not written has these in it
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(network(images), torch.arange(16) % 3).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_copies_of_a_network_are_its_own(tmp_path):
    network, images = make(3, 1, "shared"), draw((2, 1, 9, 9))
    other = copy.deepcopy(network)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    built = GCM(3, 1, encoder_width=4, decoder_width=2).double().eval()
    built.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    expected = network(images)
    with torch.no_grad():
        network.head.bias += 1
    assert torch.equal(other(images), expected)
    assert torch.equal(built(images), expected)


# ---- enlarging and its adjoint ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("small", "large"), [((1, 1), (1, 1)), ((1, 5), (1, 9)), ((2, 3), (4, 5)), ((4, 4), (32, 25))])
def test_pooling_is_the_adjoint_of_enlarging(small, large):
    maps, weights = draw((2, 3, *small)), draw((2, 3, *large), seed=1)
    enlarged, pooled = head.enlarge(maps, large), head.pool(weights, small)
    assert math.isclose((enlarged * weights).sum(), (maps * pooled).sum(), rel_tol=1e-12)
    torch.testing.assert_close(enlarged, F.interpolate(maps, large, mode="bilinear", align_corners=False))


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"architecture": "resnet"}, r"architecture='resnet'.*multiscale"),
        ({**PAPER, "encoder": "test_resnet"}, r"encoder='test_resnet', but architecture='paper'.*'multiscale'"),
        ({"polarity": "dark"}, r"polarity='dark'.*bright"),
        ({**PAPER, "upsampling": "cubic"}, r"upsampling='cubic'.*nearest.*deconvolution.*architecture='paper'"),
        ({"upsampling": "deconvolution"}, r"upsampling='deconvolution'.*nearest.*architecture='multiscale'"),
    ],
)
def test_unknown_options_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        GCM(3, **params)


def test_dark_maps_that_are_not_there():
    with pytest.raises(ValueError, match="polarity"):
        make(3, 1, "bright").weight_maps(draw((1, 1, 8, 8)), dark=True)


@pytest.mark.parametrize("size", [(4, 4096), (1, 5000)], ids=str)
@pytest.mark.parametrize("variant", ["shared", "bright", "encoder", "paper"])
def test_wide_images_add_up_in_float32(variant, size):
    network, images = make(3, 1, variant, torch.float32), draw((1, 1, *size), torch.float32)
    exact = contributions(network, images).double().mean((2, 3, 4))
    assert ((network(images) - exact).abs() <= 1e-6 * exact.abs().max()).all()


def test_no_images_have_no_scores():
    assert make(3, 1, "shared")(draw((0, 1, 8, 8))).shape == (0, 3)
