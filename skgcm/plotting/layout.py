"""Positions of the parts of a ContributionDisplay, in inches, and shortening of class labels. Draws nothing."""

import math
import re

import numpy as np

CLASSES_PER_LINE = 10
MAX_WIDTH = 12.5  # inches, of a new figure, unless a single image needs more
LABEL_SIZE, TEXT_SIZE = 9, 8  # points: class labels, everything else


def text_width(text, size, weight="normal"):
    """Width of one line of text in inches, in the user's font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit_text(text, width, *, size, weight="normal", max_lines=2):
    """`text` within `width` inches: on one line, on two, or with an ellipsis in the middle of the last."""

    def fits(line):
        return text_width(line, size, weight) <= width

    def shorten(line):
        # shorten in the middle: similar labels (scratch_left, scratch_right) differ at their ends
        for keep in range(min(len(line), 80), 1, -1):
            short = f"{line[: (keep + 1) // 2]}…{line[len(line) - keep // 2 :]}"
            if fits(short):
                return short
        return line[:1] + "…"

    text = " ".join(str(text).split())
    if fits(text):
        return text
    if max_lines == 1:
        return shorten(text)
    breaks = [match.end() for match in re.finditer(r"[ _/,.-]+", text[:60])]
    lines = [(text[:at].rstrip(), text[at:]) for at in breaks if 0 < at < len(text) and fits(text[:at].rstrip())]
    lines.sort(key=lambda pair: abs(len(pair[0]) - len(pair[1])))  # the most even first
    for first, second in lines:
        if fits(second):
            return f"{first}\n{second}"
    return f"{lines[0][0]}\n{shorten(lines[0][1])}" if lines else shorten(text)


class Layout:
    """Places, in inches, for n images and k classes each.

    Each image has a block: at the left the image, as large as a map, then its classes, ten in a line. A row has
    `abreast` blocks. From top to bottom, a class has its label, one or two maps and its score. The colour bar is at
    the right.

    Parameters
    ----------
    n_images, n_classes : int
    shape : tuple of int (R, C)
    parts : int
        Maps of a class.
    abreast : int
        Images in a row.
    label_lines, text_lines : int
        Lines in the longest class label, and in the longest text below a map or an image.
    cell : float
        Size of a map: the square root of its area, in inches.
    canvas : tuple of float (width, height) or None
        Size of the drawing area. None: exactly the needed size, `width` and `height`.
    """

    MARGIN, SIGN, PADDING, GAP = 0.08, 0.22, 0.07, 0.05
    LINE, LABEL_GAP, TEXT_LINE, TEXT_GAP, LINE_GAP, BLOCK_GAP = 0.15, 0.07, 0.14, 0.08, 0.14, 0.25
    BAR, BAR_TEXT = 0.12, 0.95

    def __init__(self, n_images, n_classes, shape, *, parts, abreast, label_lines, text_lines, cell, canvas):
        # A map one pixel high must stay visible: beyond 3 to 1, pixels are no longer drawn square.
        self.aspect = min(max(shape[0] / shape[1], 1 / 3), 3)
        self.map_width, self.map_height = cell / math.sqrt(self.aspect), cell * math.sqrt(self.aspect)
        self.maps_height = parts * self.map_height + (parts - 1) * self.GAP
        self.abreast, self.classes_abreast = abreast, min(n_classes, CLASSES_PER_LINE)
        self.column = max(self.map_width, 0.75 * min(cell, 1)) + 2 * self.PADDING  # a score fits beneath a narrow map
        self.maps_left = self.column + (self.SIGN if parts > 1 else self.GAP)
        self.label = label_lines * self.LINE + self.LABEL_GAP
        self.text = text_lines * self.TEXT_LINE + self.TEXT_GAP
        self.line = self.label + self.maps_height + self.text + self.LINE_GAP
        self.block_width = self.maps_left + self.classes_abreast * self.column + self.BLOCK_GAP
        self.block_height = self.line * math.ceil(n_classes / self.classes_abreast)
        self.width = self.MARGIN + abreast * self.block_width + self.BAR + self.BAR_TEXT
        self.height = self.MARGIN + self.block_height * math.ceil(n_images / abreast)
        self.canvas = canvas or (self.width, self.height)

    @classmethod
    def choose(cls, n_images, n_classes, shape, *, parts=1, label_lines=1, text_lines=1, canvas=None):
        """The layout of a new figure, or the one with the largest maps that a given canvas holds."""
        lines = {"label_lines": label_lines, "text_lines": text_lines}

        def layout(abreast, cell):
            return cls(n_images, n_classes, shape, parts=parts, abreast=abreast, cell=cell, canvas=canvas, **lines)

        if canvas is None:
            largest = 1.5 if n_images <= 6 else 1.1
            cells = np.geomspace(largest, 0.7, 20)  # smaller than the largest if even one image is too wide
            cell = next((cell for cell in cells if layout(1, cell).width <= MAX_WIDTH), cells[-1])
            choices = [layout(abreast, cell) for abreast in range(1, min(n_images, 12) + 1)]
            choices = [choice for choice in choices if choice.width <= MAX_WIDTH] or choices[:1]
            return min(choices, key=lambda choice: abs(math.log(choice.height / choice.width / 0.75)))
        for cell in np.geomspace(4, 0.1, 60):
            for abreast in range(1, n_images + 1):
                choice = layout(abreast, cell)
                if choice.width > canvas[0]:
                    break
                if choice.height <= canvas[1]:
                    return choice
        return layout(1, 0.1)

    def _place(self, left, top, width, height):
        """Inches from the upper left corner to [left, bottom, width, height] in fractions of the canvas, centred."""
        left += (self.canvas[0] - self.width) / 2
        bottom = (self.canvas[1] + self.height) / 2 - top - height
        return [left / self.canvas[0], bottom / self.canvas[1], width / self.canvas[0], height / self.canvas[1]]

    def _block(self, i):
        return (
            self.MARGIN + i % self.abreast * self.block_width,
            self.MARGIN + i // self.abreast * self.block_height,
        )

    def _maps(self, i, j):
        left, top = self._block(i)
        left += self.maps_left + j % self.classes_abreast * self.column
        return left, top + j // self.classes_abreast * self.line

    def image(self, i):
        """Place of image i: beside its map, or the middle of two maps."""
        left, top = self._block(i)
        left += (self.column - self.map_width) / 2
        top += self.label + (self.maps_height - self.map_height) / 2
        return self._place(left, top, self.map_width, self.map_height)

    def map(self, i, part, j):
        """Place of a map of class j of image i: of two, CCM+ where `part` is 0 and CCM- where it is 1."""
        left, top = self._maps(i, j)
        top += self.label + part * (self.map_height + self.GAP)
        return self._place(left + (self.column - self.map_width) / 2, top, self.map_width, self.map_height)

    def frame(self, i, j):
        """Place of the frame around label, maps and score of class j of image i."""
        left, top = self._maps(i, j)
        return self._place(left, top, self.column, self.line - self.LINE_GAP)

    def bar(self):
        """Position of the colour bar: as high as the maps next to it, up to about 4 inches."""
        n_lines = max(round((self.height - self.MARGIN) / self.line), 1)
        n_lines = max(min(n_lines, int(4 / self.line)), 1)
        height = (n_lines - 1) * self.line + self.maps_height
        return self._place(self.width - self.BAR_TEXT - self.BAR, self.MARGIN + self.label, self.BAR, height)
