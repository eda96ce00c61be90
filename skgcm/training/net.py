"""The skorch net that :class:`skgcm.GCMClassifier` composes: epochs, steps, schedule."""

import copy
import math
import re
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, EpochTimer, PrintLog
from skorch.exceptions import SkorchException
from tqdm import tqdm

from skgcm.network import backbone
from skgcm.training import distributed, erasing, guidance, heap, sparsity
from skgcm.training.augmentation import apart, augmented, together, without_changes
from skgcm.training.batches import Batches
from skgcm.training.cuda_graph import GraphedForward, autocast
from skgcm.training.mosaic import frozen_running_stats, make_mosaics

BATCH_SIZES = {"train_batch_size", "valid_batch_size"}  # records of a batch for skorch's callbacks, except its loss
WORTH_CAPTURING = 20  # steps: for fewer, capturing takes longer than running them
PENALISED = 2  # one of this many steps has the penalty of `sparsity`, times this number: it costs a third of a step
WARM_UP = 0.25  # share of a one-cycle schedule in which the learning rate rises


def learning_rate_factor(position):
    """One cycle: a linear rise over the first quarter of training, then half a cosine down to 0; position in [0, 1)."""
    if position < WARM_UP:
        return position / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP))


def _is_due(number, share):
    """Whether item `number`, counted from 0, belongs to a share of all items that is spread evenly."""
    return int((number + 1) * share) > int(number * share)


def _with_masks(batch):
    """Rows, labels and masks, or None for masks, from an item that :class:`Batches` yields."""
    return batch if len(batch) == 3 else (*batch, None)


def _may_stop(callback):
    """Whether a KeyboardInterrupt at the end of an epoch can come from this callback."""
    if isinstance(callback, EarlyStopping):
        return callback.misses_ >= callback.patience
    return not isinstance(callback, EpochTimer | PrintLog)


def _write_line(text):
    """Write a line of `verbose=2` to stdout. Colour codes are removed unless stdout is a terminal."""
    tqdm.write(text if sys.stdout.isatty() else re.sub(r"\x1b\[\d+m", "", text))


def _check_criterion(criterion, n_classes, device):
    """Raise ValueError for a loss that cannot be computed from scores (B, N) and class indices (B,)."""
    labels = torch.arange(n_classes + 1, device=device) % n_classes  # a length that no other axis has
    scores, cause = 1000.0 * torch.nn.functional.one_hot(labels, n_classes), None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            loss = copy.deepcopy(criterion)(scores, labels)  # a copy, because it may count its calls
        if loss.shape not in ((), labels.shape):
            raise ValueError(f"it has shape {tuple(loss.shape)}, and not () or (B,)")
        problem = "falls without limit as the score of the true class rises: it expects log-probabilities"
        problem = problem if loss.mean() < -100 else ""
    except Exception as error:  # each loss has its own errors
        problem, cause = f"cannot be computed: {str(error).rstrip('.')}", error
    if problem:
        raise ValueError(
            f"The criterion {type(criterion).__name__} {problem}. The network gives scores (B, N), whose softmax are "
            "the probabilities, and class indices (B,). Use a loss for these, like torch.nn.CrossEntropyLoss, which "
            "takes the logarithm of the softmax itself."
        ) from cause


class GCMNet(NeuralNetClassifier):
    """skorch's net for rows of pixels and integer labels.

    Parameters beyond skorch's
    --------------------------
    image_format : skgcm.inputs.images.ImageFormat
    augment : None, names joined by "+", as in "shift+flip", or callable (B, C, H, W) -> (B, C, H, W)
    precision : {"float32", "bfloat16"}
        "bfloat16" trains under autocast; weights, scores and loss stay float32.
    lr_schedule : {"one-cycle", "constant"}
    mosaic : float
        Share of the batches that become mosaics.
    sparsity : float
        Weight of the penalty on contributions. With the one-cycle schedule it rises linearly from 0 to this value.
    erasing : float
        Share of the mosaics whose images lose pixels of least evidence. With the one-cycle schedule only mosaics after
        30 % of the fit count.
    guidance : float
        Weight of the penalty on contributions that lie outside of masks, if `partial_fit` gets masks.
    seed : int
        Initial weights, order of the batches and augmentation all follow from it and from the number of the epoch.
    encoder_weights : None, "pretrained" or path
        Initial weights of an encoder that is not GCM's own.
    encoder_lr : float
        Factor of the learning rate of such an encoder; the parameter groups include it already. 0: frozen.
    cuda_graph : bool
        On CUDA, replay the network's part of a step from a graph, unless it is compiled or there are few steps. No
        effect on other devices.
    """

    def __init__(
        self,
        *args,
        image_format,
        augment,
        precision,
        lr_schedule,
        mosaic,
        sparsity,
        erasing,
        guidance,
        seed,
        encoder_weights=None,
        encoder_lr=1.0,
        cuda_graph=True,
        **kwargs,
    ):
        self.image_format = image_format
        self.augment = augment
        self.precision = precision
        self.lr_schedule = lr_schedule
        self.mosaic = mosaic
        self.sparsity = sparsity
        self.erasing = erasing
        self.guidance = guidance
        self.seed = seed
        self.encoder_weights = encoder_weights
        self.encoder_lr = encoder_lr
        self.cuda_graph = cuda_graph
        super().__init__(*args, **kwargs)

    @property
    def network(self):
        """The :class:`skgcm.network.GCM`, out of its torch.compile wrapper if it has one."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def __getstate__(self):
        # generators and graphs of a GPU cannot be loaded without one, and each fit makes new ones
        return {**super().__getstate__(), "shuffling_": None, "augmenting_": None, "step_": None}

    def get_default_callbacks(self):
        return [("epoch_timer", EpochTimer())] + [("print_log", PrintLog(sink=_write_line))] * (self.verbose > 1)

    def initialize_module(self):
        generator = torch.Generator().manual_seed(self.seed)
        module = self.module(**self.get_params_for("module"), generator=generator)
        if torch.get_default_dtype() != torch.float32:
            module.float().reset_parameters(generator.manual_seed(self.seed))
        if self._has_backbone(module):
            if self.encoder_weights is not None:
                backbone.load_weights(module.encoder, self.module__encoder, self.encoder_weights)
            if not self.encoder_lr:
                module.encoder.freeze()
        self.module_ = module.eval().to(memory_format=torch.channels_last)  # each training step sets the mode itself
        return self

    @staticmethod
    def _has_backbone(network):
        return isinstance(getattr(network, "encoder", None), backbone.Backbone)

    def _set_training(self, training=True):
        if self.module_.training != training:  # without this check it takes a quarter of the host's time in a step
            super()._set_training(training)

    def get_iterator(self, dataset, training=False, masks=None):
        share = (distributed.rank(), distributed.size()) if training else (0, 1)  # skorch's callbacks need all images
        return Batches(dataset, self.batch_size, self.shuffling_ if training else None, self.device, masks, share)

    def infer(self, x, **fit_params):
        return self.module_(self.image_format.images(x.to(self.device, non_blocking=True)))

    def train_step_single(self, batch, masks=None, mosaic=False, sparsity=0.0, erase=False, weight=1.0):
        """As skorch's, on augmented images, which may be erased in part and made mosaics, and with the penalties.

        `masks` (B, R, C) are True where the evidence should lie; an image whose mask is all False is not guided.
        `weight` is the weight of the gradients in the mean over several processes.
        """
        self._set_training(True)
        X_flat, labels = (part.to(self.device, non_blocking=True) for part in batch)
        masks = None if masks is None else masks.to(self.device, non_blocking=True)
        images = self.image_format.unflatten(X_flat)
        images = augmented(images, self.augment, self.augmenting_, self.image_format.scale, masks)
        images, masks = (images, None) if masks is None else images
        if erase:
            with autocast(images.device, self.step_.autocast_dtype):
                before, images = images, erasing.erase_low_evidence(self.network, images, labels, self.augmenting_)
            masks = without_changes(masks, before, images)
        options = {}
        # a lone mosaic that the network reduces to one pixel has no batch statistics
        if mosaic and (len(images) > 4 or 2 * max(images.shape[2:]) > self.network.stride):
            images, options["regions"], labels = make_mosaics(together(images, masks), labels, self.shuffling_)
            images, masks = apart(images, masks)
        scores, penalty = self._learn(images, labels, masks, sparsity, options)
        loss = self.get_loss(scores, labels, X=X_flat, training=True)
        total = loss if penalty is None else loss + penalty
        (total if weight == 1 else weight * total).backward()
        return {"loss": loss, "y_pred": scores[: len(X_flat)]}  # as many as labels in the batch, in their order

    def _learn(self, images, labels, masks, sparse, options):
        """Scores in training, and the penalties on the contributions, or None."""
        n_classes = self.network.n_classes
        if len(images) * distributed.size() == 1 and max(images.shape[2:]) <= self.network.stride:
            rows, columns = images.shape[2:]
            raise ValueError(
                f"A batch of one image of {rows} x {columns} pixels, which the encoder, of stride "
                f"{self.network.stride}, reduces to a single one, has no batch statistics. Train on more images at a "
                "time, or with a smaller n_stages."
            )
        # a captured or compiled network needs tensors of the same shape in each step
        all_images = bool(sparse) or self.step_.use_cuda_graph or self.compile
        regions, own, targets, penalty = options.get("regions"), labels.view(len(images), -1), None, 0
        if masks is not None:
            targets = guidance.targets(masks, labels, regions, all_images)
        if sparse:
            other = sparsity.draw_other(labels, n_classes, self.augmenting_).view_as(own)
            options["shown_classes"] = torch.cat([own, other], 1)
        elif targets is not None:
            options |= {"shown_classes": targets.classes} | ({} if all_images else {"shown": targets.images})
        with nullcontext() if regions is None else frozen_running_stats(self.network):
            out = self.step_(images, **options)
        if "shown_classes" not in options:
            return out, None
        scores, ccm = out
        if sparse:
            ccm, to_other = ccm.tensor_split(2, 1)
            penalty = sparse * sparsity.penalty(ccm, to_other, regions)
        if targets is not None:
            penalty = penalty + self.guidance * guidance.penalty(ccm, targets, len(labels))
        return scores, penalty

    def get_split_datasets(self, X, y=None, **fit_params):
        try:
            return super().get_split_datasets(X, y, **fit_params)
        except ValueError as error:
            raise ValueError(
                f"early_stopping=True holds out validation_fraction={self.train_split.cv} of each class, which these "
                f"{len(X)} images do not allow: {error}"
            ) from error

    def get_loss(self, y_pred, y_true, X=None, training=False):
        # with class weights the loss has one value for each image: PyTorch's weighted mean divides by the sum of the
        # weights in the batch, so in a batch of one class its weight would have no effect
        return super().get_loss(y_pred, y_true, X, training).mean()

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """As skorch's, but a KeyboardInterrupt that does not come from a callback is raised again."""
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        with heap.reserved():
            self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        for epoch in self.history:
            if epoch["batches"] == [{}]:
                epoch["batches"].clear()
        return self

    def fit_loop(self, X, y=None, checkpoint=None, validation=None, masks=None, interrupts=()):
        """Train for `max_epochs`; with a :class:`skgcm.files.checkpoint.Checkpoint`, for the epochs it does not have.

        `validation` is (X, y), held out instead of a part of X. `masks`, :class:`skgcm.inputs.masks.Masks`, belong to
        the images in X, including those that are held out of it. Training ends after the epoch in which `interrupts`
        gets an item.
        """
        _check_criterion(getattr(self.criterion_, "_orig_mod", self.criterion_), self.network.n_classes, self.device)
        if self._has_backbone(self.network):
            self.network.encoder.check_takes(self.image_format.shape[:2])
        done = 0 if checkpoint is None else checkpoint.restore(self)
        epochs = self.max_epochs
        self.shuffling_, self.augmenting_ = torch.Generator(), torch.Generator(self.device)
        autocast_dtype = None if self.precision == "float32" else getattr(torch, self.precision)
        on_cuda = self.augmenting_.device.type == "cuda"
        if validation is None:
            train, valid = self.get_split_datasets(X, y)
        else:
            train, valid = self.get_dataset(X, y), self.get_dataset(*validation)
        if valid is None:
            self._check_monitors(lambda name: not name.startswith("valid_loss"))
        datasets = {"dataset_train": train, "dataset_valid": valid}
        distributed.check_same_labels(y)
        distributed.check_batch_size(self.batch_size, len(train))
        number, share = distributed.rank(), (distributed.rank(), distributed.size())
        batches = self.get_iterator(train, training=True, masks=masks)
        held_out = None if valid is None else Batches(valid, self.batch_size, None, self.device, share=share)
        scheduled = self.optimizer_.param_groups if self.lr_schedule == "one-cycle" else []
        peaks = [group["lr"] for group in scheduled]
        steps = len(batches)
        use_graph = on_cuda and self.cuda_graph and not self.compile and not distributed.is_launched()
        use_graph = use_graph and (epochs - done) * steps >= WORTH_CAPTURING
        with (
            tqdm(total=epochs * steps, initial=done * steps, unit="batch", disable=self.verbose != 1) as progress,
            distributed.parallel(self.module_) as module,
            GraphedForward(module, autocast_dtype, use_graph) as self.step_,
        ):
            for epoch in range(done, epochs):
                self.notify("on_epoch_begin", **datasets)
                # an epoch's random numbers depend on the seed and its number only, not on the epochs before it
                states = np.random.SeedSequence([self.seed, len(self.history)]).generate_state(2 + number)
                self.shuffling_.manual_seed(int(states[0]))
                self.augmenting_.manual_seed(int(states[1 + number]))  # each of several processes has its own
                plan = self._plan(peaks, epoch, epochs, steps)
                with self._own_randomness(int(states[1 + number])):
                    losses = {"train_loss": self._train_epoch(batches, scheduled, plan, progress)}
                if held_out is not None:
                    losses["valid_loss"] = self._validate(held_out)
                self._record(losses)
                progress.set_postfix({name: f"{loss:.3f}" for name, loss in losses.items()})
                stopped, interrupted = map(bool, distributed.total([self._stopped(datasets), bool(interrupts)]))
                if checkpoint is not None:
                    checkpoint.save(self, finished=stopped or epoch + 1 == epochs)
                if stopped or interrupted:
                    break
        self._set_training(False)
        for group, peak in zip(scheduled, peaks, strict=True):
            group["lr"] = peak
        return self

    @contextmanager
    def _own_randomness(self, seed):
        """Context in which an encoder's dropout draws by a seed, and PyTorch's global generators stay as they were.

        GCM's own network draws nothing.
        """
        if not self._has_backbone(self.network):
            yield
            return
        device = self.augmenting_.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would change those of all GPUs
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield

    def _stopped(self, datasets):
        """Notify the callbacks that an epoch has ended; return whether one of them ends training."""
        try:
            self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt:  # how a skorch callback ends training; but it may be Ctrl-C
            if not any(_may_stop(callback) for _, callback in self.callbacks_):
                raise
            return True
        except (KeyError, SkorchException, ValueError):  # of skorch's callbacks, for a name not in the history
            self._check_monitors(self.history[-1].__contains__)
            raise
        return False

    def _check_monitors(self, is_recorded):
        """Raise ValueError for a callback that watches a name for which `is_recorded` is False."""
        for _, callback in self.callbacks_:
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and not is_recorded(monitor):
                raise ValueError(
                    f"The callback {type(callback).__name__} has monitor={monitor!r}, which is not recorded in this "
                    "fit. train_loss always is, and valid_loss where images are held out: by early_stopping=True, or "
                    "fit(X, y, validation_data=(X_valid, y_valid)). Other names come from earlier callbacks."
                )

    def _plan(self, peaks, epoch, epochs, steps):
        """For each step of an epoch: learning rates of the scheduled parameter groups, and options of the step."""
        for step in range(steps):
            position = (epoch + (step + 0.5) / steps) / epochs
            rates = [peak * learning_rate_factor(position) for peak in peaks]
            progress = position if self.lr_schedule == "one-cycle" else 1.0
            # from the history, since each call of partial_fit starts at epoch 0
            number = (len(self.history) - 1) * steps + step
            mosaic = _is_due(number, self.mosaic)
            erase = mosaic and progress >= erasing.START and _is_due(int(number * self.mosaic), self.erasing)
            # mosaics and other batches are counted each by itself, so that of both the same share is penalised
            of_kind = int(number * self.mosaic) if mosaic else number - int(number * self.mosaic)
            sparsity = PENALISED * self.sparsity * progress if of_kind % PENALISED == 0 else 0.0
            yield rates, {"mosaic": mosaic, "sparsity": sparsity, "erase": erase}

    def _train_epoch(self, batches, scheduled, plan, progress):
        """Mean loss of one pass. The losses stay on the device until the end: the host waits once an epoch."""
        super()._set_training(True)  # a callback may have changed the mode of a module
        losses, sizes = [], []
        for (*batch, masks), weight, (rates, options) in zip(
            map(_with_masks, batches), batches.weights, plan, strict=True
        ):
            for group, rate in zip(scheduled, rates, strict=True):
                group["lr"] = rate
            self.notify("on_batch_begin", batch=batch, training=True)
            step = self.train_step(batch, masks=masks, **options, weight=weight)
            self.history.record_batch("train_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=True, **step)
            losses.append(step["loss"].detach())
            sizes.append(len(batch[0]))
            del step  # its autograd graph would prevent a capture in the next step, after hooks are removed
            progress.update()
        return distributed.mean(torch.stack(losses).cpu().numpy(), sizes)

    def _validate(self, batches):
        losses, sizes = [], []
        for batch in batches:
            self.notify("on_batch_begin", batch=batch, training=False)
            step = self.validation_step(batch)
            self.history.record_batch("valid_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=False, **step)
            losses.append(step["loss"])
            sizes.append(len(batch[0]))
        return distributed.mean(torch.stack(losses).cpu().numpy() if losses else [], sizes)

    def _record(self, losses):
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise self._diverged(f"{name} is {loss}")
            self.history.record(name, loss)
            self.history.record(f"{name}_best", all(loss < epoch.get(name, math.inf) for epoch in self.history[:-1]))
        self._check_finite()
        batches = self.history[-1]["batches"]
        if all(batch.keys() <= BATCH_SIZES for batch in batches):  # no callback wrote there
            batches[:] = [{}]  # skorch's callbacks need a last batch

    def _check_finite(self):
        """Check the weights and the optimizer. The loss does not show the last step, nor overflow in batch norm."""
        state = list(self.network.state_dict().items())
        for memory in self.optimizer_.state.values():
            state += [(f"the optimizer's {name}", x) for name, x in memory.items() if isinstance(x, torch.Tensor)]
        state = [(name, x) for name, x in state if x.is_floating_point()]
        bounds = [torch.stack(x.aminmax()).to(self.device) for _, x in state]  # NaN gives NaN
        finite = torch.stack(bounds).isfinite().all(1).tolist()  # the host waits once
        if not all(finite):
            raise self._diverged(f"{state[finite.index(False)][0]} has values that are not finite")

    def _diverged(self, what):
        return FloatingPointError(
            f"{what} in epoch {self.history[-1]['epoch']} at lr={self.lr}: training diverged. Fit with a smaller lr, "
            "or look for wrong values in X."
        )

    def continue_from(self, other, *, momentum=False):
        """Copy weights and history, with `momentum` also the optimizer's state, from a net of the same architecture."""
        self.encoder_weights = None  # do not load weights that are replaced below
        self.initialize()
        try:
            self.network.load_state_dict(other.network.state_dict())
        except RuntimeError as error:
            raise ValueError(
                "The network's parameters are not those of the last fit, so that training cannot continue from there. "
                f"Restore them, or fit with warm_start=False. {error}"
            ) from error
        if momentum and type(self.optimizer_) is type(other.optimizer_):
            own = self.optimizer_.state_dict()
            self.optimizer_.load_state_dict({**own, "state": copy.deepcopy(other.optimizer_.state_dict()["state"])})
        self.history = copy.deepcopy(other.history)
