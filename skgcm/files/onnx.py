"""A fitted network as one ONNX file. Inputs are images in the units of X, outputs scores, probabilities and maps."""

import json
import logging
import math
import threading
import warnings
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch
from torch import nn

from skgcm._version import __version__
from skgcm.inference import describe
from skgcm.network.gcm import contribution_maps
from skgcm.utils import atomic
from skgcm.utils.torch_state import fork_safe, ieee_float32

MAPS = ("contributions", "weights", None)
DTYPES = ("uint8", "float32", None)
OPSETS = (17, 23)  # first and last
OLDEST_EXPORTED = 18  # by PyTorch's exporter; for 17 the graph is rewritten here
# Attributes of operators that opset 18 introduced, and the values with which they behave as in opset 17.
NEUTRAL = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "noop_with_empty_axes": 0}
TURNS = threading.Lock()  # PyTorch's export patches global state, so two exports at once fail
TOLERANCE = 1e-4  # difference between file and network, relative to the largest value or 1


class _Graph(nn.Module):
    """The computation in the file, from images (n, R, C, D) in units of the value range.

    It calls the network unchanged: the exporter turns the nine shifts of the contracted scores into two gathers, and no
    tensor of N x R x C is in the graph unless maps are among the outputs.
    """

    def __init__(self, network, image_format, maps, known):
        super().__init__()
        self.network, self.image_format, self.maps = network, image_format, maps
        self.typicality = None if known is None else _Typicality(known)

    @property
    def output_names(self):
        maps = {None: [], "contributions": ["contributions"], "weights": ["weights", "weights_dark"]}[self.maps]
        usual = [] if self.typicality is None else ["typicality"]
        return ["scores", "probabilities", *maps[: self.network.head.n_polarities], *usual]

    def forward(self, images):
        images = self.image_format.scale(images)  # (n, R, C, D)
        # a graph cannot raise errors as `predict` does: NaN in any pixel makes the scores NaN, since they are sums
        images = images.masked_fill((images < -1) | (images > 2), math.nan)
        channels_first = images.permute(0, 3, 1, 2)
        features = self.network.features(channels_first)
        maps = []
        if self.maps is None:
            scores = self.network(channels_first, features=features)
        else:
            scores, _, cwm, _ = self.network.evidence(channels_first, features=features)
            if self.maps == "weights":
                maps = cwm.unbind(1)
            else:
                maps = [contribution_maps(cwm[..., None], self.network.polarities(images))]  # (n, N, R, C, D)
        usual = []
        if self.typicality is not None:
            usual = [self.typicality(describe(channels_first, features, self.network.head.levels))]
        return scores, scores.softmax(1), *maps, *usual


class _Typicality(nn.Module):
    """:class:`skgcm.typicality.Typicality` in operations that a graph has, from descriptions (n, P) to (n,)."""

    def __init__(self, known):
        super().__init__()
        for name, array in vars(known).items():
            self.register_buffer(name, torch.from_numpy(array))
        start, self.share_of_tail, self.exponent = known.tail
        self.start = float(start)

    def forward(self, descriptions):
        points = (descriptions - self.centre) / self.scale @ self.whitening
        far = (points[:, None] - self.means).square().sum(2).amin(1).sqrt()
        share = (self.distances >= far[:, None]).to(far.dtype).mean(1)
        tail = self.share_of_tail * (far.clamp_min(self.start) / self.start) ** self.exponent
        return torch.where(far > self.start, tail, share).where(~far.isnan(), far)  # NaN for an image with NaN scores


@fork_safe
def write(path, network, image_format, classes, maps, dtype, opset, known):
    """Write a network to an ONNX file. Parameters and errors as in :meth:`skgcm.GCMClassifier.to_onnx`.

    known : Typicality or None
    """
    if maps not in MAPS:
        raise ValueError(f"maps={maps!r} must be 'contributions', 'weights' or None.")
    first, last = OPSETS
    if opset is not None and not (isinstance(opset, Integral) and first <= opset <= last):
        raise ValueError(f"opset={opset!r} must be an integer from {first} to {last}, or None.")
    dtype = _input_dtype(dtype, image_format.value_range)
    metadata = _metadata(image_format, classes)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        remedy = "pip install onnx onnxruntime onnxscript"
        raise ImportError(f"to_onnx needs {error.name}, which is not installed: {remedy}") from error
    graph = _Graph(network.fused().cpu(), image_format, maps, known).eval()
    images = _example(image_format, dtype)
    # an autocast of the user would be recorded in the graph
    with TURNS, _flags_kept(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        content = _export(graph, images, metadata, opset)
        _check(content, graph, images)
    atomic.write(path, content)


def _input_dtype(dtype, value_range):
    """The dtype that the user gave, or the one that fits the value range."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be 'uint8', 'float32' or None.")
    low, high = value_range
    if dtype is None:
        return "uint8" if (low, high) == (0, 255) else "float32"
    if dtype == "uint8" and not 0 <= low < high <= 255:
        raise ValueError(
            f"dtype='uint8', but the images of the fit have a value_range of ({low:g}, {high:g}), which uint8 does not "
            "hold. Use dtype='float32'."
        )
    return dtype


def _metadata(image_format, classes):
    try:
        labels = json.dumps(classes.tolist(), ensure_ascii=False)
    except TypeError as error:
        raise ValueError(
            f"The metadata of a file holds strings, numbers and booleans, but the classes are {classes.tolist()} "
            f"({error}). Fit with such labels."
        ) from error
    return {
        "classes": labels,
        "image_shape": json.dumps(image_format.shape),
        "value_range": json.dumps(image_format.value_range),
        "skgcm_version": __version__,
    }


def _example(image_format, dtype):
    """Three images within the value range: two random ones, and one that is the same everywhere."""
    low, high = image_format.value_range
    values = np.random.default_rng(0).uniform(low, high, (3, *image_format.shape))
    values[2] = values[2].flat[0]
    return torch.from_numpy(values.round() if dtype == "uint8" else values).to(getattr(torch, dtype))


def _export(graph, images, metadata, opset):
    """The bytes of an ONNX file that takes any number of such images."""
    import onnx

    with _quiet_exporter():
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            verbose=False,  # True prints
            input_names=["images"],
            output_names=graph.output_names,
            dynamic_shapes={"images": {0: "n"}},
            opset_version=opset and int(max(opset, OLDEST_EXPORTED)),
        )
    model = program.model_proto
    if opset is not None and opset < OLDEST_EXPORTED:
        _rewrite_as_opset_17(model)
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)  # runtimes refuse newer ones than theirs
    # remove the stack traces that the exporter adds to each node: they contain paths of this machine
    parts = model.graph.node, model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer
    for part in (model.graph, *(one for several in parts for one in several)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def _rewrite_as_opset_17(model):
    """Change opset 18 to 17 in place: axes of reductions become attributes, neutral attributes go. Check the rest."""
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name in NEUTRAL]:
            if onnx.helper.get_attribute_value(attribute) == NEUTRAL[attribute.name]:
                node.attribute.remove(attribute)
        reduces = node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"  # which takes axes as an input
        if reduces and len(node.input) == 2 and node.input[1] in constants:
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()])
            node.attribute.append(onnx.helper.make_attribute("axes", axes.tolist()))
    (imported,) = model.opset_import
    imported.version = 17
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise RuntimeError(f"The network cannot be written with opset=17: {error} Use opset=18.") from error


@contextmanager
def _flags_kept():
    """Context in which PyTorch's export works with any setting of the float32 flags, and which restores the flags.

    The export reads and sets the flags by their old interface. That raises an error if the new interface has another
    setting ("ieee", or while another thread predicts), and it overwrites flags that inherit a more general setting.
    """
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    with ieee_float32["cpu"], ieee_float32["cuda"]:  # the flags of both must agree
        found = [(place, place.fp32_precision) for place in (torch.backends, cudnn, cudnn.rnn)]
        mkldnn_found = mkldnn.fp32_precision
        for place, _ in found:
            place.fp32_precision = "ieee"
        try:
            old = cudnn.allow_tf32
        except RuntimeError:  # it differs from all the others
            old = True
        cudnn.allow_tf32 = False
        try:
            yield
        finally:
            cudnn.allow_tf32 = old
            cudnn.conv.fp32_precision = "ieee"  # for other threads; ieee_float32 restores it
            for place, precision in found:
                place.fp32_precision = "none"  # inherit the more general setting, if it was so before
                if place.fp32_precision != precision:
                    place.fp32_precision = precision
            mkldnn.set_flags(_fp32_precision="none")  # its attribute would set the precision of all backends
            if mkldnn.fp32_precision != mkldnn_found:
                mkldnn.set_flags(_fp32_precision=mkldnn_found)


@contextmanager
def _quiet_exporter():
    """Context without two messages of PyTorch's exporter that a user cannot act on; all other messages stay."""

    def concerns_us(record):
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(concerns_us)
    try:
        with warnings.catch_warnings():
            # PyTorch 2.13 copies its tree specifications in a way that it has deprecated
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(concerns_us)


def _check(content, graph, images):
    """Raise RuntimeError unless ONNX Runtime gives the network's results: exporters drop what they cannot translate."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # no pool of threads for three images
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    answers = session.run(graph.output_names, {"images": images.numpy()})
    for name, found, expected in zip(graph.output_names, answers, graph(images), strict=True):
        expected = expected.numpy()
        difference, scale = np.abs(found - expected).max(), max(1.0, np.abs(expected).max())
        if not difference <= TOLERANCE * scale:
            raise RuntimeError(
                f"The exported graph's {name} differ from the network's by {difference:.2g}, so it was not "
                f"written. PyTorch {torch.__version__}, or its exporter onnxscript, translated the network wrongly. "
                "Install the versions that skgcm is tested with (its constraints.txt), and please report this."
            )
