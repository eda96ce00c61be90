"""Maps of chosen classes, image by image: GCM's contributions, and other methods' on the comparison CNN by Captum."""

import warnings

import numpy as np
import torch
from _cnn import for_captum
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, LayerGradCam

from skgcm.utils.torch_state import ieee_float32

STEPS = 20  # of Integrated Gradients, from black


def grad_cam(cnn):
    method = LayerGradCam(cnn, cnn.encoder)

    def attribute(images, target):
        cam = method.attribute(images, target=target, relu_attributions=True)
        return torch.nn.functional.interpolate(cam, size=images.shape[2:], mode="bilinear", align_corners=False)

    return attribute


def integrated_gradients(cnn):
    method = IntegratedGradients(cnn)
    return lambda images, target: method.attribute(images, target=target, n_steps=STEPS)


METHODS = {
    "Grad-CAM": grad_cam,
    "Guided Backpropagation": lambda cnn: GuidedBackprop(cnn).attribute,
    "Integrated Gradients": integrated_gradients,
    "Input × Gradient": lambda cnn: InputXGradient(cnn).attribute,
}


class PostHoc:
    """A method's maps on a fitted CNN: ``maps(X, labels)`` of images (n, R, C[, D]) and labels (n, k), (n, k, R, C)."""

    def __init__(self, clf, method):
        self.clf, self.attribute = clf, METHODS[method](for_captum(clf.net_.network))
        self.device = next(clf.net_.network.parameters()).device

    def __call__(self, X, labels):
        X = X[..., None] if X.ndim == 3 else X
        images = self.clf.net_.image_format.scale(torch.from_numpy(X).to(self.device).permute(0, 3, 1, 2))
        targets = torch.from_numpy(np.searchsorted(self.clf.classes_, labels)).to(self.device)
        with ieee_float32[self.device.type], warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")  # once for each batch
            maps = [self.attribute(images.clone().requires_grad_(), target).sum(1).detach() for target in targets.T]
        return torch.stack(maps, 1).cpu().numpy()


def contributions(clf):
    """GCM's own: the contribution of each pixel to the score."""
    return lambda X, labels: clf.explain(X, labels, any_size=True).pixel_contributions


def contrasts(clf):
    """GCM's, less the mean of all classes."""
    return lambda X, labels: clf.explain(X, labels, any_size=True).versus("mean").pixel_contributions
