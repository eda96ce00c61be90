"""GCMClassifier, the scikit-learn interface: parameters, fit, predict, explain, transform; no tensor arithmetic."""

import dataclasses
import os
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from skgcm import calibration, inference, typicality
from skgcm.explanation import Explanation
from skgcm.files import model, onnx
from skgcm.files.checkpoint import Checkpoint
from skgcm.inputs import images, labels, validation
from skgcm.inputs import masks as masks_of_images
from skgcm.inputs.files import ImageFiles
from skgcm.inputs.value_range import check_value_range, check_values_in_range, find_value_range, warn_if_dark
from skgcm.network import ARCHITECTURES, POLARITIES, UPSAMPLING
from skgcm.training import augmentation, build, convergence, distributed
from skgcm.utils import torch_state
from skgcm.utils.arrays import as_numpy
from skgcm.utils.sklearn_compat import Interval, StrOptions, check_feature_names_in, check_sample_weight, fit_context
from skgcm.utils.warnings import warn


class GCMClassifier(TransformerMixin, ClassifierMixin, BaseEstimator):
    """Image classifier whose class scores are plain averages of maps that you can look at.

    For each class the network generates a weight map at the image's own resolution (class weight map, CWM) and
    multiplies it with the image (class contribution map, CCM); the mean of the CCM over rows, columns and channels is
    the class score, and the class of the highest score is predicted. So :meth:`explain` returns the terms of the score
    itself, and not an explanation after the fact.

    Parameters
    ----------
    n_classes : int, default=None
        Number of classes. None: the number of labels in y. More only for integer labels within 0 .. n_classes - 1; then
        ``classes_`` is ``arange(n_classes)``.
    architecture : {"multiscale", "paper"}, default="multiscale"
        "multiscale": a residual encoder, which reads each image standardised by a robust mean and deviation and as it
        is, and weights of each class at every resolution, whose maps are added. "paper": the network of the paper, with
        weights at the full resolution alone, which reads the plain image. The maps multiply the plain image in both.
    encoder : str or callable, default="gcm"
        "gcm": the architecture's own encoder, trained from random weights. The name of a model of timm, as in
        "resnet18.a1_in1k" (extra ``encoders``): any that is convolutional or hierarchical and has ``features_only``.
        The decoder goes back through its resolutions to the image's own, and the evidence is exact too. The encoder
        reads the image minus timm's mean, divided by timm's standard deviation; the maps multiply the plain image. A
        callable without arguments: it returns a ``torch.nn.Module`` that takes images (B, D, R, C) in [0, 1] and
        returns a list of features (B, K, r, c), fine to coarse. With another encoder than "gcm", `encoder_width` and
        `n_stages` have no effect.
    encoder_weights : "pretrained", None, str or path-like, default="pretrained"
        Initial weights of timm's model. "pretrained": those that timm downloads; check that their licence suits you.
        None: random ones. A path: a file of the model's weights, .safetensors or .pth, as
        ``torch.save(model.state_dict(), path)`` writes it; nothing in it is executed. A callable's module keeps the
        weights it comes with, unless a path is given. With ``encoder="gcm"`` a path is a ValueError.
    encoder_lr : float, default=0.1
        Factor of `lr` for the parameters of another encoder than "gcm". 0: the encoder is frozen, including the
        statistics of its batch norm.
    encoder_width : int, default=16
        Channels of the first convolutions; later stages have 2 and 4 times as many.
    decoder_width : int or "auto", default="auto"
        Channels of the last decoder stage; the ones before it have 2 and 4 times as many, with another `encoder` up to
        8 times. "auto": 8, or 16 in the paper's architecture.
    n_stages : int or "auto", default="auto"
        Number of resolutions; each stage after the first halves rows and columns. "auto": 3; 4 for images of 96 x 96
        pixels and more, 5 from 256 x 256 on. With more than three, the network has fewer channels at the full
        resolution. In the paper's architecture "auto" is 3.
    shared_decoder : bool, default=True
        True: all classes share one decoder. False: each class has its own decoder.
    clip_negative : bool, default=False
        The paper's clipped variant: a ReLU makes weight maps non-negative.
    polarity : {"bright", "both", "auto"}, default="auto"
        "both": a second weight map of each class on 1 - image, so that dark pixels can be evidence too (cracks,
        scratches): ``CCM_j = CWM_j * image + CWM_dark_j * (1 - image)``. With "bright", the paper's form, a pixel of
        value 0 contributes nothing. "auto": "both", or "bright" in the paper's architecture.
    upsampling : {"nearest", "deconvolution"}, default="nearest"
        How the decoder of the paper's architecture enlarges: nearest-neighbour and a convolution, or a stride-2
        deconvolution, which leaves a 2-pixel lattice in the maps. "multiscale" has only "nearest".
    image_shape : tuple, default=None
        (rows, columns) or (rows, columns, channels) of an image. Needed for rows of pixels that are not a square grey
        image. It also decides ambiguous axes of an array.
    channels_first : bool, default=False
        True: X is (n, channels, rows, columns), or rows in that order.
    value_range : tuple, default=None
        (low, high): the numbers that mean 0 and 1 to the network. None: (0, 255) for uint8, (0, 1) for bool and for
        floats within it, else (0, maximum of the training images), or (minimum, maximum) where some are negative.
    augment : str, callable or None, default="auto"
        Random changes of the training images. "auto": "shift" for images of at least 8 pixels on both sides, else None,
        no change. Other strings are names joined by "+", as in "shift+flip". "shift": moved by up to an
        eighth of their size; the border is filled with its reflection. "flip": half of them mirrored left to right.
        "rotate": by quarter turns (half turns where images are not square); with "flip" in all eight positions, for
        surfaces.
        "brightness": up to a quarter of the value range more or less. "contrast": up to a quarter more or less.
        "cutout": a rectangle of up to half of each side gets the image's mean colour. A callable gets and returns a
        tensor (batch, channels, rows, columns) in the dtype and units of X.
    mosaic : float in [0, 0.5], default=0.0
        Share of the training batches that become mosaics of four images around a random point: the contributions in
        a part must classify that part alone, so that evidence comes to lie on the object. 0: no mosaics.
    sparsity : "auto" or float, default="auto"
        Weight in the loss of the penalty on evidence that is spread out or has the wrong sign. The penalty is the sum
        of ``mean(|c|)^2 / mean(c^2)`` for the contributions c to an image's own class, which is 1 if all pixels
        contribute the same and small if few do, of ``mean(max(-c, 0))`` for the same contributions, and of
        ``mean(max(c, 0))`` for those to a random other class: what images of several classes have in common becomes
        evidence for none. A larger value makes maps sharper, but 1 can reduce the accuracy with few images. With the
        one-cycle schedule the weight rises linearly from 0 to this value over `max_epochs`, and a fit that stops early
        ends with less; else it is constant, as in `partial_fit`. 0: no penalty, which is faster by about a sixth.
        "auto": 0.3, or 0 in the paper's architecture.
    erasing : float in [0, 1], default=0.0
        Share of the mosaics whose images are erased in part first: up to half of their pixels, those that contribute
        least to their class, get the batch's mean colour. A decision should not need pixels without evidence. With the
        one-cycle schedule it starts after 30 % of `max_epochs`, else at once. 0: none. Needs `mosaic`.
    guidance : float, default=1.0
        Weight in the loss of the penalty on contributions to an image's own class that lie outside of its mask, for
        images with one in the `masks` of :meth:`fit`. It moves the largest contributions into the mask, and increases
        the share of the positive ones inside. 0: masks are not used.
    optimizer : {"auto", "sgd", "adamw"} or a class of torch.optim, default="auto"
        "auto": "sgd", or "adamw" with another `encoder` than "gcm". "sgd" has Nesterov momentum 0.9, "adamw" betas of
        0.9 and 0.99. LBFGS, Muon and SparseAdam cannot train this network.
    lr : float or "auto", default="auto"
        Learning rate; with a schedule, the highest. "auto": 0.1 for batches of up to 64 images, in proportion
        for larger ones; 0.002 with "adamw". With a class of torch.optim, the default of that class if it
        has one.
    lr_schedule : {"one-cycle", "constant"}, default="one-cycle"
        "one-cycle" rises linearly for a quarter of `max_epochs` and falls along a cosine to 0. "constant" does
        not change it, so a callback can (skorch's LRScheduler).
    weight_decay : float, default=5e-4
        Passed to the optimizer unless it is 0. Use 0 for an optimizer without weight decay.
    max_epochs : int or "auto", default="auto"
        Passes over the training images. "auto": ``30 * sqrt(5000 / n)`` for n images, at least 30 and at most 200; 30
        with another `encoder` than "gcm", unless ``encoder_weights=None``.
    batch_size : int or "auto", default="auto"
        Images in a training step. "auto": 64; in `fit` 32 where X has fewer than 768 images, 16 where it has fewer than
        384, and on CUDA 512 where it has 10,000 and more.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the training images, or use the ``validation_data`` of `fit`; stop when the
        loss on them has not fallen for `n_iter_no_change` epochs, and keep the best weights.
    validation_fraction : float, default=0.1
        Share of each class that `early_stopping` holds out, unless `fit` is given ``validation_data``.
    n_iter_no_change : int, default=10
        Patience of `early_stopping`, in epochs.
    class_weight : dict or "balanced", default=None
        Factor of an image's cross entropy, from label to number, 1 for a label that is not in the dict. "balanced":
        inverse to the frequency of the class. Labels that are not in y are ignored if the dict has all labels of y.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions in training. "auto": bfloat16 if that is faster (CUDA, AMX, AVX-512 BF16 of
        AMD), else float32. Weights, scores and loss, and all of prediction, are float32. On CUDA float32 convolutions
        train as PyTorch is set to compute them, by default in TF32.
    device : str or torch.device, default="auto"
        "auto": CUDA if available, else "cpu". "mps", Apple's GPUs, only by name: it has not been tested.
    checkpoint : str or path-like, default=None
        File that `fit` writes after each epoch, whole or not at all. If the file exists, `fit` continues from it: an
        interrupted fit, started again with the same parameters and data, ends in the same weights, on the CPU to the
        bit (on the same machine, with the same versions and number of threads). Or a folder that exists: each fit has
        its own file there, so cross-validation and grid search can be interrupted too. ``~`` is the home folder. See
        the notes.
    callbacks : list of skorch callbacks, default=None
        Callbacks as for skorch. Losses are recorded for epochs, not for batches. A callback ends training by raising
        KeyboardInterrupt at the end of an epoch.
    net_params : dict, default=None
        Further parameters of the skorch net, e.g. ``{"criterion__label_smoothing": 0.1}``; ``{"compile": True}``
        trains through torch.compile. On CUDA, training steps are replayed from a graph; ``{"cuda_graph": False}`` turns
        that off, for fits while other threads use the GPU, or to save memory. Entries for which this class has
        parameters, or which it sets itself, are refused. A grid search varies an entry by names like
        ``net_params__criterion__label_smoothing``, see :meth:`set_params`.
    warm_start : bool, default=False
        True: `fit` starts from the weights of the last fit.
    transform_maps : {"contributions", "weights"}, default="contributions"
        What :meth:`transform` returns: CCM, averaged over channels, or CWM (without the dark maps of
        ``polarity="both"``).
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, order of the images, augmentation and held-out images. None: different each time. No
        global random state is read or changed.
    verbose : int, default=0
        0: silent; 1: one progress bar; 2: a line an epoch.

    Attributes
    ----------
    classes_ : ndarray (N,)
        Class labels, in the order of scores and maps.
    image_shape_ : tuple (R, C, D)
        Rows, columns and channels of an image.
    value_range_ : tuple (low, high)
        The numbers that mean 0 and 1.
    n_features_in_ : int
        R * C * D.
    feature_names_in_ : ndarray (R * C * D,)
        Column names, if X was a data frame.
    net_ : skorch.NeuralNet
        The trained net; ``net_.network`` is the :class:`skgcm.network.GCM`.
    temperature_ : float
        Scores and maps are divided by it: 1.0 after `fit` and `partial_fit`, else the result of :meth:`calibrate`.
    history_ : list of dict
        ``train_loss``, ``valid_loss`` (if images are held out), whether they are the lowest so far
        (``train_loss_best``) and ``dur`` in seconds, epoch by epoch. The penalties of `sparsity` and `guidance` are in
        neither loss.

    See Also
    --------
    skgcm.network.GCM : The network alone, as a PyTorch module.
    skgcm.ContributionDisplay : Pictures of the evidence.

    Notes
    -----
    ``score_j = mean over r, c, d of CWM_j[r, c] * image[r, c, d]`` holds to rounding for every image (with the dark
    maps' part added, if ``polarity="both"``). It gives the terms of the decision. It does not promise that the evidence
    lies on the object: a weight depends on a whole neighbourhood. Adding one map to all classes changes no probability.
    With polarity "bright", a pixel of value 0 contributes nothing.

    There is no ``sample_weight``: an image of weight 0 would still take part in the statistics of batch norm, which
    differs from its meaning in scikit-learn. Use `class_weight`.

    A `checkpoint` holds weights, the states of optimizer and early stopping, history, seed, parameters and fingerprints
    of X, y and masks (no images; for image files their names, sizes and times of change). After a finished fit it holds
    the result, which `fit` then returns without training. A file serves one fit: delete it to train again from the
    start. While a fit uses it, another fit with the same file is an error. In a folder, the name of the file is a
    fingerprint of the parameters, X and y: fits with the same parameters, `random_state` and data share a file. If the
    file cannot be written, there is a warning and training continues. ``verbose`` and ``transform_maps`` may change
    between interruptions. A checkpoint does not work with `callbacks`, a callable `augment`, ``warm_start=True``, a
    RandomState or an optimizer that is not PyTorch's: their state is not in the file. `partial_fit` neither reads nor
    writes it.

    Several threads may use one fitted classifier at once, and so may the child of a fork and other processes. The
    results are the same, to the bit if PyTorch uses the same number of threads; `torch.set_num_threads` acts on the
    thread that calls it and on threads that start later. PyTorch's settings do not change, except the float32 precision
    of the device: it belongs to the process, and is "ieee" while any thread is predicting; `to_onnx` sets that of all
    devices. In the child of a fork, training uses one thread. Do not fit an estimator while another thread uses it.

    If torchrun has started several processes, each trains on its part of every batch, and all end with the same
    weights. Pass the same X and y to all. `batch_size` counts the images of all processes together. An `encoder` with
    other batch norm than plain ``torch.nn.BatchNorm2d`` is a ValueError there, unless ``encoder_lr=0``.

    References
    ----------
    Generative Contribution Mappings: "畳み込みニューラルネットワークを用いた画像分類タスクの直感的可視化方法",
    IPSJ Transactions on Mathematical Modeling and its Applications 10(2), 1-13, July 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skgcm import GCMClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = GCMClassifier(max_epochs=10, device="cpu", random_state=0).fit(X[:1000], y[:1000])
    >>> clf.score(X[1000:], y[1000:]) > 0.9
    True
    >>> evidence = clf.explain(X[1000:1005])
    >>> evidence.ccm.shape
    (5, 1, 8, 8, 1)
    >>> np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=1e-5)
    """

    _parameter_constraints = {
        "n_classes": [Interval(Integral, 2, None, closed="left"), None],
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "encoder": [str, callable],
        "encoder_weights": [str, os.PathLike, None],
        "encoder_lr": [Interval(Real, 0, None, closed="left")],
        "encoder_width": [Interval(Integral, 1, None, closed="left")],
        "decoder_width": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_stages": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "shared_decoder": ["boolean"],
        "clip_negative": ["boolean"],
        "polarity": [StrOptions({*POLARITIES, "auto"})],
        "upsampling": [StrOptions(set(UPSAMPLING))],
        "image_shape": [tuple, list, np.ndarray, None],
        "channels_first": ["boolean"],
        "value_range": [tuple, list, np.ndarray, None],
        "augment": [str, callable, None],
        "mosaic": [Interval(Real, 0, 0.5, closed="both")],
        "sparsity": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "erasing": [Interval(Real, 0, 1, closed="both")],
        "guidance": [Interval(Real, 0, None, closed="left")],
        "optimizer": [StrOptions({"auto", *build.OPTIMIZERS}), type],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"one-cycle", "constant"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str, torch.device],
        "checkpoint": [str, os.PathLike, None],
        "callbacks": [list, None],
        "net_params": [dict, None],
        "warm_start": ["boolean"],
        "transform_maps": [StrOptions({"contributions", "weights"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_classes=None,
        *,
        architecture="multiscale",
        encoder="gcm",
        encoder_weights="pretrained",
        encoder_lr=0.1,
        encoder_width=16,
        decoder_width="auto",
        n_stages="auto",
        shared_decoder=True,
        clip_negative=False,
        polarity="auto",
        upsampling="nearest",
        image_shape=None,
        channels_first=False,
        value_range=None,
        augment="auto",
        mosaic=0.0,
        sparsity="auto",
        erasing=0.0,
        guidance=1.0,
        optimizer="auto",
        lr="auto",
        lr_schedule="one-cycle",
        weight_decay=5e-4,
        max_epochs="auto",
        batch_size="auto",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        class_weight=None,
        precision="auto",
        device="auto",
        checkpoint=None,
        callbacks=None,
        net_params=None,
        warm_start=False,
        transform_maps="contributions",
        random_state=None,
        verbose=0,
    ):
        self.n_classes = n_classes
        self.architecture = architecture
        self.encoder = encoder
        self.encoder_weights = encoder_weights
        self.encoder_lr = encoder_lr
        self.encoder_width = encoder_width
        self.decoder_width = decoder_width
        self.n_stages = n_stages
        self.shared_decoder = shared_decoder
        self.clip_negative = clip_negative
        self.polarity = polarity
        self.upsampling = upsampling
        self.image_shape = image_shape
        self.channels_first = channels_first
        self.value_range = value_range
        self.augment = augment
        self.mosaic = mosaic
        self.sparsity = sparsity
        self.erasing = erasing
        self.guidance = guidance
        self.optimizer = optimizer
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.precision = precision
        self.device = device
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.net_params = net_params
        self.warm_start = warm_start
        self.transform_maps = transform_maps
        self.random_state = random_state
        self.verbose = verbose

    _typicality = None  # statistics of the training images, see typicality

    def set_params(self, **params):
        """Set parameters. Single entries of `net_params` can be set too, so that a grid search can vary them.

        Parameters
        ----------
        **params : dict
            Parameters of this class, as in scikit-learn. ``net_params__NAME=value`` sets one entry of `net_params` and
            leaves the others, as in ``GridSearchCV(clf, {"net_params__criterion__label_smoothing": [0, 0.1]})``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For names that are not parameters. For invalid entries of `net_params`, `fit` raises it.
        """
        prefix = "net_params__"
        entries = {name.removeprefix(prefix): params.pop(name) for name in list(params) if name.startswith(prefix)}
        super().set_params(**params)
        if entries:
            self.net_params = {**(self.net_params or {}), **entries}  # a new dict: clones share the old one
        return self

    # ---- fitting -------------------------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, masks=None, *, validation_data=None):
        """Train on images.

        Ctrl-C ends training at the end of the epoch, with a warning: the model is kept, and a fit with `checkpoint` can
        continue from there. A second Ctrl-C before that end raises KeyboardInterrupt at once, and the estimator does
        not change. This works in the main thread, unless the program handles SIGINT itself.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images; (n, D, R, C) with ``channels_first=True``. uint8 is not copied to float as a whole. A Pillow image,
            or a sequence of them, is read as :func:`skgcm.datasets.load_image_folder` reads its file: as uint8, in grey
            or colour, upright and on black. Or names of image files, str or path-like: a list, or an array (n,). Files
            are read in the size and the channels of `image_shape`, 1 or 3, batch by batch, as
            :func:`skgcm.datasets.load_image_folder` reads them with that size. All methods take what `fit` takes.
        y : array-like (n,)
            Class labels.
        masks : array-like of bool (n, R', C'), or sequence of n items, default=None
            Where the evidence for the class of each image should lie. An item is None for an image without annotation;
            a mask, bool (R', C'), True where the evidence should be; or boxes, numbers (m, 4): (left, top, right,
            bottom) in pixels of X, right and bottom just outside, fractions rounded outwards. Masks of some images help
            too. An empty mask or no boxes (a faultless part) has no effect, as with None. Masks of another size than
            the images are resized: nearest-neighbour to larger ones; in smaller ones a pixel is inside if any part of
            it is. They move with their images in `augment` and `mosaic`. See `guidance`.
        validation_data : tuple (X, y), default=None
            Images and labels that are not trained on, in the form of X and y, of the same size and units, with labels
            that y has. After each epoch the loss on them is recorded as ``valid_loss``, for callbacks to watch. With
            ``early_stopping=True`` it decides when to stop, and no part of X is held out. A Pipeline does not transform
            them. None: nothing is held out, unless by `early_stopping`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For data or parameters that do not fit together, and for a `checkpoint` of other data or parameters. An
            estimator that was fitted before does not change.
        ModelFileError
            A ValueError, for a `checkpoint` that is damaged.
        OSError
            For a `checkpoint` that cannot be read.
        FloatingPointError
            If the loss, a weight, a statistic of batch norm or, after training, a score is not finite. The estimator
            does not change.
        """
        with torch_state.default_modes(), self._unchanged_on_error(), torch_state.noting_interrupts() as interrupts:
            warm = self.warm_start and hasattr(self, "net_")
            X_flat, y = self._validate_training(X, y, None, first=not warm)
            masks = self._validate_masks(masks, len(X_flat))
            held_out = None if validation_data is None else self._validate_held_out(validation_data)
            with self._checkpoint(X_flat, y, held_out, masks) as saved:
                random_state = self.random_state if saved is None else saved.random_state
                net = self._build_net(y, len(y), hold_out=held_out is None, random_state=random_state)
                begun = 0
                if warm:
                    net.continue_from(self.net_)
                    begun = len(net.history)
                self._train(net, X_flat, y, checkpoint=saved, validation=held_out, masks=masks, interrupts=interrupts)
        epochs = len(self.history_) - begun
        if interrupts and epochs < net.max_epochs:
            warn(f"Ctrl-C ended the training after {epochs} of {net.max_epochs} epochs. The model is kept.")
        self._look_back(net, X_flat, y)
        return self

    def _look_back(self, net, X_flat, y):
        """Predict some training images, to check whether they are learned, and for the typicality."""
        n_images = min(typicality.N_IMAGES, max(1, convergence.CHECKED_VALUES // X_flat.shape[1]))
        some = np.random.default_rng(net.seed).permutation(len(X_flat))[:n_images]
        described = len(some) >= typicality.LEAST_IMAGES and min(self.image_shape_[:2]) >= typicality.LEAST_SIDE
        scores, descriptions = inference.scores_and_descriptions(net.network, net.image_format, X_flat[some], described)
        self._typicality = typicality.fit(descriptions, y[some]) if described else None
        weights = build.class_weights(self.class_weight, self.classes_, y)
        scores, some = scores[: convergence.CHECKED], some[: convergence.CHECKED]
        if distributed.rank() == 0:
            convergence.warn_if_near_chance(scores, y[some], weights, len(net.history))

    def _checkpoint(self, X_flat, y, held_out, masks):
        if self.checkpoint is None:
            return nullcontext()
        return Checkpoint(self._all_params(), self.image_shape_, X_flat, self.classes_, y, held_out, masks)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, masks=None):
        """Train for one more epoch, at the constant learning rate `lr`. No `checkpoint` is read or written.

        The first call sets ``image_shape_`` and ``value_range_``: pass `value_range` if later images may be brighter.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images.
        y : array-like (n,)
            Class labels.
        classes : array-like (N,), default=None
            All labels of this and later calls. Needed in the first call, unless they are 0 .. `n_classes` - 1.
        masks : array-like or sequence of n items, default=None
            Where the evidence should lie, as in :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, FloatingPointError
            As in :meth:`fit`. An estimator that was fitted before does not change.
        """
        with torch_state.default_modes(), self._unchanged_on_error():
            first = not hasattr(self, "net_")
            if first and classes is None:
                if self.n_classes is None:
                    raise ValueError(
                        "classes must be passed on the first call to partial_fit, unless n_classes is given."
                    )
                classes = np.arange(self.n_classes)
            if self.class_weight == "balanced":
                raise ValueError("class_weight='balanced' needs all labels at once. For partial_fit, pass a dict.")
            X_flat, y = self._validate_training(X, y, classes, first)
            masks = self._validate_masks(masks, len(X_flat))
            net = self._build_net(y, lr_schedule="constant", max_epochs=1, early_stopping=False)
            if not first:
                net.continue_from(self.net_, momentum=True)
            self._train(net, X_flat, y, masks=masks)
            self._typicality = None  # it needs all images, and the features have changed
        return self

    def calibrate(self, X, y):
        """Calibrate probabilities to match the accuracy, by one temperature that divides all scores and maps.

        Predictions stay the same, and so do the relations between the maps of an image. Contributions still average to
        the scores: all methods, :meth:`save` and :meth:`to_onnx` use the temperature. Further training starts from the
        weights without it, and sets it to 1.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Held-out images: they took no part in the fit and, if possible, none in early stopping.
        y : array-like (n,)
            Their labels, of two classes or more, all in ``classes_``.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`decision_function`, and for a `y` that does not go with X.

        Notes
        -----
        ``temperature_`` is the number T in [0.01, 100] for which ``softmax(scores / T)`` has the least negative
        log-likelihood of y, where a label counts ``1 - 1 / (n + 2)`` and the other classes share the rest, as in
        Platt's method. T > 1 makes probabilities smaller. A second call starts from the scores of the fit again.

        References
        ----------
        C. Guo et al., On calibration of modern neural networks, ICML 2017.
        """
        X_flat, image_format = self._validate_images(X)
        y = labels.indices(validation.check_labels(self, y, len(X_flat)), self.classes_, "y")
        if len(np.unique(y)) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_[y[:1]].tolist()}. Calibrate on images of at least 2 classes, as "
                "frequent as in use."
            )
        scores = inference.scores(self.net_.network, image_format, X_flat)
        self.net_.network.head.temperature = calibration.fit_temperature(scores * self.temperature_, y)
        return self

    @property
    def temperature_(self):
        return self.net_.network.head.temperature  # stored once, in the network, so that pickles and copies keep it

    @contextmanager
    def _unchanged_on_error(self):
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _validate_training(self, X, y, classes, first):
        """Rows (n, R * C * D) and class indices (n,); sets what a fit learns about the data."""
        X = self._as_array(X, first)
        if first:
            shape = images.find_shape(X.shape, self.image_shape, self.channels_first)
        else:
            self._check_continues(classes)
            self._check_fitted_shape(X, self.channels_first)
        X_flat = validation.check_images(self, X, reset=first)
        y = validation.check_labels(self, y, len(X_flat))
        if first:
            of, name = (y, "y") if classes is None else (classes, "classes")
            self.classes_ = labels.find(of, self.n_classes, name)
            self.image_shape_ = shape
            given = self.value_range
            self.value_range_ = find_value_range(X_flat) if given is None else check_value_range(given)
        if first and self.value_range is None:
            warn_if_dark(X_flat, self.value_range_)
        else:
            check_values_in_range(X_flat, self.value_range_)
        remedy = "Name all labels, as n_classes or in the first partial_fit as classes; or fit again from the start."
        return X_flat, labels.indices(y, self.classes_, "y", remedy)

    def _validate_masks(self, masks, n):
        """The :class:`skgcm.inputs.masks.Masks` of n images, or None where they have no effect."""
        masks = masks_of_images.find(masks, n, self.image_shape_[:2])
        if masks is None or not self.guidance:
            return None
        if callable(self.augment):
            raise ValueError(
                "masks are given, but augment is a callable, which would move the images without the masks. Use names "
                "joined by '+', like 'shift+flip', augment=None, or fit without masks."
            )
        return masks

    def _validate_held_out(self, validation_data):
        """Rows (m, R * C * D) and class indices (m,) of the validation data."""
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise ValueError(
                f"validation_data is a {type(validation_data).__name__}. Expected a tuple (X, y), images and labels."
            )
        X, y = validation_data
        try:
            X = images.as_array(X, self.channels_first, self.image_shape_)
            self._check_fitted_shape(X, self.channels_first)
            X_flat = validation.check_images(self, X)
            check_values_in_range(X_flat, self.value_range_)
            y = validation.check_labels(self, y, len(X_flat))
            return X_flat, labels.indices(y, self.classes_, "y", "Expected labels that the y of fit has.")
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"validation_data: {error}") from error

    def _check_continues(self, classes):
        """Raise ValueError if training would continue with parameters that contradict the first fit."""
        shape, given, first = self.image_shape, self.value_range, self.net_.image_format.channels_first
        wanted = None if classes is None else labels.unique(classes, "classes")
        for name, now, fitted in (
            ("n_classes", self.n_classes, len(self.classes_)),
            ("classes", wanted if wanted is None else wanted.tolist(), self.classes_.tolist()),
            ("channels_first", self.channels_first, first),
            ("image_shape", None if shape is None else images.check_image_shape(shape), self.image_shape_),
            ("value_range", None if given is None else check_value_range(given), self.value_range_),
        ):
            if now is not None and now != fitted:
                raise ValueError(
                    f"{name}={now!r}, but training continues a fit with {fitted!r}. Keep that value, or fit with "
                    "warm_start=False."
                )

    def _all_params(self):
        """The parameters, also those that a subclass's own `__init__` sets and does not take."""
        return {name: getattr(self, name) for name in GCMClassifier._get_param_names()} | self.get_params(deep=False)

    def _build_net(self, y, n_images=None, hold_out=True, **other_params):
        if self.erasing and not self.mosaic:
            raise ValueError(
                f"erasing={self.erasing!r} is a share of the mosaics, and mosaic=0 makes none. Set mosaic=0.33, or "
                "erasing=0."
            )
        if isinstance(self.augment, str):
            augmentation.parse(augmentation.resolve(self.augment, self.image_shape_))
        params = {**self._all_params(), **other_params}
        image_format = images.ImageFormat(self.image_shape_, self.channels_first, self.value_range_)
        weights = build.class_weights(self.class_weight, self.classes_, y)
        return build.build_net(params, image_format, len(self.classes_), weights, n_images, hold_out)

    def _train(self, net, X_flat, y, **options):
        net.partial_fit(X_flat, y, **options)
        # the loss does not include the last step, and finite weights can give activations that are not finite
        if not np.isfinite(inference.scores(net.network, net.image_format, X_flat[: net.batch_size])).all():
            raise FloatingPointError(
                f"The scores of training images are not finite after training at lr={net.lr}: it diverged. Fit with a "
                "smaller lr, or look for wrong values in X, like one image with several labels."
            )
        self.net_, self.history_ = net, net.history

    # ---- predicting ----------------------------------------------------------------------------------------------

    def decision_function(self, X, *, any_size=False):
        """Class scores: the averages of the class contribution maps.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit.
        any_size : bool, default=False
            Accept images (n, rows, columns) or (n, rows, columns, D) larger or smaller than at fit, all of one size.
            They must have the scale of the images of the fit: an object must be as many pixels large as it was there.
            The network does not know other scales, so do not resize frames. The scores are means over a whole frame,
            which a small object changes little; :meth:`explain` shows where it lies.

        Returns
        -------
        ndarray (n, N) float32, or (n,) where there are two classes
            With two classes, the score of ``classes_[1]`` minus the score of ``classes_[0]``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            For images of another size, values that are not finite, and values outside ``value_range_`` by more than its
            width. If many values are outside, or all in a small part of it, there is a UserWarning.
        """
        scores = self._scores(X, any_size)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X, *, any_size=False):
        """Labels of highest score, (n,). X, `any_size` and errors as in :meth:`decision_function`."""
        scores = self._judged_scores(X, any_size)  # first: it raises NotFittedError
        return self.classes_[scores.argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        """Accuracy of the predicted labels.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit.
        y : array-like (n,)
            True labels.
        sample_weight : array-like (n,), default=None
            How much each image counts.

        Returns
        -------
        float

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`decision_function`, and for a `y` or `sample_weight` that does not go with X.
        """
        predicted = self.predict(X)
        if sample_weight is not None:
            sample_weight = check_sample_weight(as_numpy(sample_weight), predicted)
        with validation.naming("y"), np.errstate(invalid="ignore"):
            return accuracy_score(as_numpy(y), predicted, sample_weight=sample_weight)

    def predict_proba(self, X, *, any_size=False):
        """Softmax of the scores, float32 (n, N). X, `any_size` and errors as in :meth:`decision_function`."""
        return softmax(self._judged_scores(X, any_size), axis=1)

    def predict_log_proba(self, X, *, any_size=False):
        """Logarithm of :meth:`predict_proba`, float32 (n, N), without its underflow."""
        return log_softmax(self._judged_scores(X, any_size), axis=1)

    def typicality(self, X):
        """How usual images are among the training images: low for kinds of images that the classifier does not know.

        A classifier predicts a class for any image, often with a high probability. If the typicality is low, the
        prediction is unreliable: the image is of another kind, or its exposure or sharpness differs from the fit.
        :meth:`predict`, :meth:`predict_proba`, :meth:`predict_log_proba` and :meth:`score` warn where more than 10 %
        of the images have a typicality below 0.001, or more than 40 % of 20 and more images one below 0.1.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit.

        Returns
        -------
        ndarray (n,) float64, in [0, 1]
            The share of training images that are at least as unusual. NaN if it is unknown: after a fit of fewer than
            50 images or of images with fewer than 8 rows or columns, and after `partial_fit`.

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`decision_function`.

        Notes
        -----
        An image is described by its brightness, contrast and sharpness, and by the features of the network at all
        resolutions but the coarsest, averaged over the image. Of up to 2,000 training images `fit` keeps the mean of
        each class and a common covariance. The distance of an image is Mahalanobis' to the nearest class. It is
        compared with the cross-fitted distances of the training images; large distances with a Pareto distribution,
        which is fitted to the 30 largest.

        A small or rare object in an image of the usual kind changes the averages little, so the image stays typical.

        References
        ----------
        K. Lee et al., A simple unified framework for detecting out-of-distribution samples and adversarial attacks,
        NeurIPS 2018.
        """
        return self._scores_and_typicality(X)[1]

    def transform(self, X):
        """Evidence as features for a further step of a Pipeline.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit.

        Returns
        -------
        ndarray (n, N * R * C) float32
            The map of each class, row by row: CCM averaged over channels, so that the mean of a class's features is
            its score, or CWM with ``transform_maps="weights"``. Columns are named CLASS_ROW_COLUMN.

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`decision_function`.

        Notes
        -----
        The array takes 4 * N * R * C bytes an image: 40 KB for ten classes of 32 x 32, 2 GB for 50,000 of them. While
        contributions are computed from weights there are two such arrays. With ``polarity="both"`` there are four, and
        two for ``transform_maps="weights"``.

        Maps of the images that the classifier was fitted on contain information about their labels: a second step that
        is trained on them relies on the maps too much. Fit it on other images, or on cross-fitted maps: the maps of
        each image come from a classifier that was fitted without it.
        """
        X_flat, image_format = self._validate_images(X)
        self._validate_params()  # transform_maps may change after the fit
        evidence = self._explain(X_flat, None, image_format)
        features = evidence.cwm if self.transform_maps == "weights" else evidence.pixel_contributions
        return features.reshape(len(features), -1)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of :meth:`transform`, CLASS_ROW_COLUMN.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Compared with the columns of X in `fit`, otherwise not used.

        Returns
        -------
        ndarray (N * R * C,) of str objects
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        rows, columns, _ = self.image_shape_
        names = [f"{c}_{i}_{j}" for c in self.classes_ for i in range(rows) for j in range(columns)]
        return np.asarray(names, dtype=object)

    def explain(self, X, classes="predicted", *, any_size=False):
        """The evidence: the contribution of each pixel to the scores of some classes.

        Parameters
        ----------
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit.
        classes : {"predicted", "all", "top-K"}, label, or sequence of labels, default="predicted"
            "predicted": the class of highest score; "top-3": the three of highest score, best first; "all": all, in
            the order of ``classes_``. A 1-D sequence names the classes to show for every image, each once; a 2-D one
            (n, k) image by image: ``y[:, None]`` shows the true classes. Integers are labels, never positions, and a
            bare string is always a keyword: the label "all" is ``["all"]``.
        any_size : bool, default=False
            Accept images (n, rows, columns) or (n, rows, columns, D) larger or smaller than at fit: the network is
            fully convolutional, so a classifier fitted on crops can show where the evidence lies in a whole frame.
            Frames must have the scale of the crops: an object must be as many pixels large as it was there, so do not
            resize frames. The scores are means over the whole frame, which a small object changes little: pass the
            class of the object as `classes`, do not rely on the predicted one.

        Returns
        -------
        Explanation
            For n images and k classes: images (n, R, C, D), cwm (n, k, R, C), scores (n, k), classes (n, k),
            probabilities (n, k), which are those of `predict_proba`; and cwm_mean (n, R, C), the mean map of all N
            classes, for contrasts. With ``polarity="both"`` also cwm_dark and cwm_dark_mean, in the same shapes.

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`decision_function`, and for invalid `classes`.
        """
        X_flat, image_format = self._validate_images(X, any_size)
        return self._explain(X_flat, labels.choose(classes, self.classes_, len(X_flat)), image_format)

    def explain_batches(self, X, classes="predicted", *, batch_size=256, any_size=False):
        """Like :meth:`explain`, but an iterator over batches, for images whose maps do not all fit into memory.

        Parameters
        ----------
        X, classes, any_size
            As in :meth:`explain`.
        batch_size : int, default=256
            Images in an Explanation; the last may have fewer.

        Returns
        -------
        iterator of Explanation

        Raises
        ------
        NotFittedError, ValueError
            As in :meth:`explain`, and for an invalid `batch_size`; at the call, not at the first batch.
        """
        if not isinstance(batch_size, Integral) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be an integer of at least 1.")
        X_flat, image_format = self._validate_images(X, any_size)
        chosen = labels.choose(classes, self.classes_, len(X_flat))
        return (
            self._explain(X_flat[part], chosen[part] if isinstance(chosen, np.ndarray) else chosen, image_format)
            for part in gen_batches(len(X_flat), int(batch_size))
        )

    def to_onnx(self, path, maps="contributions", *, dtype=None, opset=None):
        """Write an ONNX file that scores and explains images without skgcm and without PyTorch (extra ``onnx``).

        Parameters
        ----------
        path : str, path-like or binary file object
            The file. An existing file is replaced. It is written whole or not at all. ``~`` is the home folder. A file
            object is written at its position.
        maps : {"contributions", "weights"} or None, default="contributions"
            Which maps of all classes are among the outputs. None: no maps, which is faster.
        dtype : {"uint8", "float32"} or None, default=None
            Dtype of the images that the graph accepts: images of another dtype are an error. None: "uint8" if
            ``value_range_`` is (0, 255), else "float32".
        opset : int, 17 to 23, default=None
            Version of ONNX's operators. Old runtimes do not have new versions: ONNX Runtime 1.12 needs 17, for example.
            None: the one that PyTorch prefers, 20 as of PyTorch 2.13.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            For other values of `maps`, `dtype` or `opset`, uint8 for a ``value_range_`` outside 0 .. 255, and labels
            that are not strings, numbers or booleans.
        ImportError
            If the packages of the extra are not installed.
        RuntimeError
            If the results of the graph differ from the network's: before it is written, it is run on a few random
            images. Or if `opset` lacks an operator that is needed.
        OSError
            If the file cannot be written.

        Notes
        -----
        The graph takes any number n of images of the size ``image_shape_``, and returns float32:

        ============= =============== ==============================================================================
        images        (n, R, C, D)    the input: always channels last, with an axis for D even if it is 1; numbers
                                      as at fit, ``value_range_``
        scores        (n, N)          with two classes too: :meth:`decision_function` is their difference
        probabilities (n, N)          as :meth:`predict_proba`
        contributions (n, N, R, C, D) CCM of all classes; the mean over R, C and D is the score
        weights       (n, N, R, C)    CWM of all classes, with ``maps="weights"``
        weights_dark  (n, N, R, C)    with ``maps="weights"``, CWM on 1 - image, if ``polarity="both"``
        typicality    (n,)            as :meth:`typicality`, if the classifier has it
        ============= =============== ==============================================================================

        They equal those of :meth:`explain` to float32 rounding. A graph cannot raise errors: an image that `predict`
        would refuse, with a NaN or with values outside the value range by more than its width, has NaN as scores,
        probabilities and typicality. The graph cannot detect images in 0 .. 1 instead of 0 .. 255, unless its input is
        uint8.

        Only one thread exports at a time; others may predict meanwhile.

        The file's metadata has ``classes``, the labels in the order of the scores, ``image_shape`` and ``value_range``
        in JSON, and ``skgcm_version``. Nothing in it names the machine it was made on. ONNX Runtime runs it::

            session = onnxruntime.InferenceSession("model.onnx")
            classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
            names = ["scores", "probabilities", "contributions", "typicality"]
            scores, probabilities, contributions, usual = session.run(names, {"images": images})
            predicted = [classes[j] for j in scores.argmax(axis=1)]
        """
        check_is_fitted(self)
        onnx.write(path, self.net_.network, self.net_.image_format, self.classes_, maps, dtype, opset, self._typicality)

    def _scores_and_typicality(self, X):
        X_flat, image_format = self._validate_images(X)
        known, network = self._typicality, self.net_.network
        scores, descriptions = inference.scores_and_descriptions(network, image_format, X_flat, known is not None)
        return scores, np.full(len(X_flat), np.nan) if known is None else known(descriptions)

    def _judged_scores(self, X, any_size):
        """Scores, with a warning where many images are unlike the training images."""
        if any_size or self._typicality is None:  # typicality is for images of the fitted size
            return self._scores(X, any_size)
        scores, usual = self._scores_and_typicality(X)
        typicality.warn_if_strange(usual)
        return scores

    def _scores(self, X, any_size):
        X_flat, image_format = self._validate_images(X, any_size)
        return inference.scores(self.net_.network, image_format, X_flat)

    def _explain(self, X_flat, chosen, image_format):
        found = inference.evidence(self.net_.network, image_format, X_flat, chosen)
        explanation = Explanation(**{**found, "classes": self.classes_[found["classes"]]})
        # among classes that the user names, the predicted one may be missing
        every = np.arange(len(self.classes_))
        ordered = np.sort(found["classes"], axis=1)
        complete = ordered.shape[1] == len(every) and bool((ordered == every).all())
        explanation._complete = complete
        if complete or not isinstance(chosen, np.ndarray):
            highest = found["scores"].argmax(axis=1)
            explanation._predicted = explanation.classes[np.arange(len(highest)), highest]
        return explanation

    def _as_array(self, X, first=False):
        if first:
            return images.as_array(X, self.channels_first, self.image_shape)
        return images.as_array(X, self.net_.image_format.channels_first, self.image_shape_)

    def _check_fitted_shape(self, X, channels_first):
        single = X.shape == self.image_shape_[:2] and X.shape[1] != self.n_features_in_
        if len(X.shape) > 2 or single:  # scikit-learn checks flattened images
            images.check_shape(X.shape, self.image_shape_, channels_first, "this classifier was fitted on")

    def _validate_images(self, X, any_size=False):
        """Images of the fitted size, or of any -> rows (n, R * C * D), checked, and their ImageFormat."""
        check_is_fitted(self)
        X, image_format = self._as_array(X), self.net_.image_format
        if any_size and isinstance(X, ImageFiles):
            X = X.in_own_size()
            image_format = dataclasses.replace(image_format, shape=X.image_shape)
        elif any_size:
            shape = images.frame_shape(X.shape, self.image_shape_[2], image_format.channels_first)
            image_format = dataclasses.replace(image_format, shape=shape)
        else:
            self._check_fitted_shape(X, image_format.channels_first)
        X_flat = validation.check_images(self, X, any_size=any_size)
        check_values_in_range(X_flat, self.value_range_)
        return X_flat, image_format

    # ---- keeping -------------------------------------------------------------------------------------------------

    def save(self, path):
        """Write the fitted classifier to a file that is safe to open.

        The file is in safetensors format: the weights, and the rest as JSON. It holds no code. Files of pickle and
        joblib work too, but loading them executes any code in them. An existing file at `path` is replaced in one step
        after the new file is on the disk, and does not change if that fails.

        Parameters
        ----------
        path : str, path-like or binary file object
            For instance ``"model.gcm"``, or ``"~/model.gcm"`` in the home folder. A file object, a BytesIO for
            instance, is written at its position.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            For parameters that cannot be stored, because they are code: a callable `augment`, `callbacks`, an
            `optimizer` class, a RandomState as `random_state`, `net_params` other than ``compile`` (its mode, dynamic,
            fullgraph), ``cuda_graph`` and plain values for the loss and the optimizer. Also for labels other than
            text, numbers and bool, and for more text than a file may have: histories of more than about 10,000 epochs,
            tens of thousands of column names or labels.
        TypeError
            For a file object of text.
        OSError
            If the file cannot be written.

        Notes
        -----
        The momentum of the optimizer is not stored: :meth:`partial_fit` after :meth:`load` starts with none, as the
        first one did. `fit` with ``warm_start=True`` always starts with none, so it gives the same weights as without
        the file. The numbers and text of ``history_`` are stored, epoch by epoch. The parameter `checkpoint` is not
        stored: a file must not choose where a fit writes. A path in `encoder_weights` is stored as None: a file must
        not choose what a fit reads. The stored weights are those of the whole network; set `encoder_weights` again for
        a new `fit`.

        Examples
        --------
        >>> import tempfile
        >>> X, y = np.random.default_rng(0).random((20, 8, 8)), np.arange(20) % 2
        >>> clf = GCMClassifier(max_epochs=1, device="cpu").fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clf.save(f"{folder}/model.gcm")
        ...     loaded = GCMClassifier.load(f"{folder}/model.gcm")
        >>> np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))
        True
        """
        model.save(self, path)

    @classmethod
    def load(cls, path, device=None):
        """Read a classifier that :meth:`save` wrote. Nothing in the file is executed.

        Predictions and evidence are those of the saved classifier to the bit, on the same machine and versions.

        Parameters
        ----------
        path : str, path-like or binary file object
            The content is checked before memory is allocated: opening a file takes less than twice its size
            and 64 MiB. A file object is read from its position to its end, through a temporary file.
        device : str or torch.device, default=None
            Replaces the parameter `device`. None: the saved value.

        Returns
        -------
        GCMClassifier
            Or the subclass that this was called on.

        Raises
        ------
        ModelFileError
            A ValueError, if the file is damaged, has another version or kind, is not a model, or is for a device that
            is not available (pass ``device="cpu"``).
        ValueError
            For an invalid `device`.
        TypeError
            For a file object of text.
        OSError
            If the file cannot be read.
        """
        return model.load(cls, path, device)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
