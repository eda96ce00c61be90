"""Find the images of a folder, those that are left out, and the class of each image.

Files are tuples of names relative to the folder: ("good", "monday", "1.png") for good/monday/1.png.
"""

import os
import unicodedata
from collections import defaultdict
from fnmatch import fnmatchcase

from PIL import Image

from skgcm.inputs import pillow
from skgcm.utils.warnings import warn

# Photos that Pillow reads only with a plugin, if at all, and drawings that it leaves to other programs. Without a
# warning a user would not notice that they are missing.
UNREAD = {".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}
UNREAD |= {".eps", ".wmf", ".emf"}

LAYOUT = "Expected one folder per class with its images directly inside: CLASS/FILE, for example good/0001.png."
NO_CLASSES = "For images without classes there is load_images."

# Why an image is left out
DEEPER, BESIDE = "in subfolders of class folders", "next to the class folders"
UNNAMED, FOREIGN = "without the extension of an image", "in formats that Pillow does not read"


def find_images(path, pattern=None):
    """Images at any depth of a folder, sorted."""
    _check_folder(path)
    files, known = _list(path)
    globs = ("**",) if pattern is None else _split(pattern)
    images, left = _choose(path, files, known, globs, named=pattern is not None, depth=1)
    if not images:
        raise ValueError(f"{_given(path, pattern)} holds no images that Pillow reads (it holds {_some(files)}).")
    _warn(path, images, left, globs)
    return images


def find_classes(path, pattern=None, masks=None):
    """Images in class folders, sorted by class, then by name, the class of each, and {image: path of its mask}.

    `masks` is a folder, a Path, or a suffix, a string that follows the name of the image in that of its mask.
    """
    _check_folder(path)
    given = _given(path, pattern)
    files, known = _list(path)
    globs = ("*", "*") if pattern is None else _split(pattern)
    globs = ("*", *globs) if len(globs) == 1 and globs != ("**",) else globs
    folders = [name for name in _visible(path) if (path / name).is_dir()]
    if not folders and known:
        raise ValueError(
            f"{given} holds images but no class folders. {LAYOUT} Move them into one folder per class. Where they "
            f"are of one class, pass its parent folder. {NO_CLASSES}"
        )
    if not folders:
        raise ValueError(f"{given} holds no class folders. {LAYOUT} Check that it is the folder you mean.")
    classes = [name for name in folders if globs[0] == "**" or _fits(name, globs[0])]
    if not classes:
        raise ValueError(
            f"{given}: no class folder matches {globs[0]!r}. A pattern begins with the class folders, "
            f"pattern={'/'.join(('*', *globs))!r} for example. The folders are {_quoted(folders)}."
        )
    labels = _labels(path, classes)
    images, left = _choose(path, files, known, globs, named=pattern is not None, depth=2)
    if isinstance(masks, str):
        found = _masks_beside(images, known, masks)
        taken = set(found.values())
        images, left = _without(images, left, taken)
        found = {names: path.joinpath(*mask) for names, mask in found.items() if names not in taken}
    else:
        found = {} if masks is None else _masks_in(masks, images)
    if masks is not None and not found:
        raise ValueError(
            f"masks={str(masks)!r}: none of {len(images)} images has a mask there. Expected the suffix that the name "
            "of a mask adds to that of its photo (masks='_mask' for part1.jpg and part1_mask.png), or a folder with "
            "the same class folders (ground_truth/scratch/part1.png or part1_mask.png for scratch/part1.jpg)."
        )
    empty = set(classes) - {names[0] for names in images}
    if empty:
        unnamed = any(names[0] in empty for names in left.get(UNNAMED, ()))
        advice = "Pass pattern='*/*' to read those without an extension." if unnamed else _advice(path, known)
        raise _no_images(path / min(empty), pattern, advice)
    if len(classes) == 1:
        advice = _advice(path, known) or _advice_above(path, classes[0]) or LAYOUT
        raise ValueError(
            f"{given} holds one class, {labels[classes[0]]!r}, but a classifier needs at least 2. {advice} {NO_CLASSES}"
        )
    _warn(path, images, left, globs)
    return images, [labels[names[0]] for names in images], found


# ---- files -------------------------------------------------------------------------------------------------------


def _check_folder(path, name="path"):
    given = f"{name}={str(path)!r}"
    if not path.exists():
        raise FileNotFoundError(f"{given} does not exist (looked for {str(path.absolute())!r}). {LAYOUT}")
    if not path.is_dir():
        raise NotADirectoryError(f"{given} is a file, not a folder. {LAYOUT} Unpack an archive first.")


def _visible(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _walk(folder, names=(), above=()):
    """All files below a folder. A link to a folder that contains the link is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for name in _visible(folder):
        entry = os.path.join(folder, name)
        if os.path.isdir(entry):
            yield from _walk(entry, (*names, name), (*above, real))
        elif os.path.isfile(entry) or not os.path.exists(entry):  # a broken link counts as a file that cannot be read
            yield (*names, name)


def _list(path):
    """All files of a folder, and the set of those with an extension of an image that Pillow reads."""
    formats = pillow.formats()
    extensions = {extension for extension, name in Image.registered_extensions().items() if name in formats}
    files = sorted(_walk(path), key=lambda names: tuple(map(_nfc, names)))
    return files, {names for names in files if _extension(names) in extensions}


def _extension(names):
    return os.path.splitext(names[-1])[1].lower()


def _choose(path, files, known, globs, *, named, depth):
    """Files to read as images, and the files that are left out, by reason. Images lie at least at this depth.

    `named`: the user gave a pattern. Then files may have any extension. Otherwise only files with the extension of an
    image are read, and others are counted.
    """
    images, left = [], defaultdict(list)
    for names in files:
        matches = _match(names, globs)
        if named and not matches:
            continue
        unread = names not in known and _extension(names) in UNREAD
        image = names in known or (not unread and pillow.is_image(path.joinpath(*names)))
        if image and matches and len(names) >= depth and (named or names in known):
            images.append(names)
        elif unread or (named and not image):
            left[FOREIGN].append(names)
        elif image:
            left[BESIDE if len(names) < depth else UNNAMED if matches else DEEPER].append(names)
    return images, left


def _warn(path, images, left, globs):
    """Warn about files that are left out, and about images that may be masks of others."""
    if left:
        n = sum(map(len, left.values()))
        kinds = "; ".join(f"{len(files)} {reason}, {_some(files)}" for reason, files in left.items())
        remedy = "Say which files are images: pattern='**/*' for all at any depth, pattern='*/*.png' for some, "
        remedy += "or convert them to PNG or JPEG." if FOREIGN in left else "or move the others elsewhere."
        warn(f"{n} {'file is' if n == 1 else 'files are'} left out of {str(path)!r}: {kinds}. {remedy}")
    same = defaultdict(list)
    for names in images:
        same[*names[:-1], _nfc(os.path.splitext(names[-1])[0]).casefold()].append(names)
    same = [names for several in same.values() if len(several) > 1 for names in several]
    if same:
        folders = globs if globs[-1] == "**" else globs[:-1]
        extension = min(map(_extension, same[:2]), key=lambda found: (found in {"", ".png"}, found))  # masks are PNG
        glob = "/".join((*folders, f"*{extension}"))
        warn(
            f"{len(same)} images have the name of another in their folder but for the extension, {_some(same)}. Where "
            f"some are masks or copies, say which files are images, pattern={glob!r} for example."
        )


# ---- masks -------------------------------------------------------------------------------------------------------


def _stem(names):
    """The path without the extension, in Unicode form NFC."""
    return tuple(map(_nfc, (*names[:-1], os.path.splitext(names[-1])[0])))


def _masks_beside(images, known, suffix):
    """{image: its mask}, where the name of the mask is that of the image, without the extension, plus `suffix`."""
    full = bool(os.path.splitext(suffix)[1]) or suffix.startswith(".")  # the extension is in the suffix
    by_name = {(tuple(map(_nfc, names)) if full else _stem(names)): names for names in known}
    found = {}
    for names in images:
        *folders, stem = _stem(names)
        mask = by_name.get((*folders, stem + _nfc(suffix)))
        if mask is not None and mask != names:
            found[names] = mask
    return found


def _masks_in(folder, images):
    """{image: its mask}, for images whose path, with or without "_mask" after the name, is in a folder of masks."""
    _check_folder(folder, "masks")
    by_stem = {_stem(names): names for names in _list(folder)[1]}
    found = {}
    for names in images:
        *folders, stem = _stem(names)
        mask = by_stem.get((*folders, stem)) or by_stem.get((*folders, f"{stem}_mask"))
        if mask is not None:
            found[names] = folder.joinpath(*mask)
    return found


def _without(images, left, taken):
    """Images, and left out files by reason, both without masks."""
    left = {reason: [names for names in files if names not in taken] for reason, files in left.items()}
    return [names for names in images if names not in taken], {reason: files for reason, files in left.items() if files}


# ---- names -------------------------------------------------------------------------------------------------------


def _nfc(name):
    # Macs store some names decomposed, but typed names are mostly composed
    return unicodedata.normalize("NFC", name)


def _split(pattern):
    """The parts of a glob, ("**", "*.png") for example."""
    parts = tuple(pattern.split("/")) if isinstance(pattern, str) else ()
    if not parts or {"", ".", ".."} & set(parts):
        raise ValueError(
            f"pattern={pattern!r}: expected a glob for files below path, with / between folders, such as '**/*.jpg' or "
            "'*/photos/*.png'."
        )
    return parts


def _fits(name, glob):
    return fnmatchcase(_nfc(name).lower(), _nfc(glob).lower())


def _match(names, globs):
    """Whether the names of a file match the parts of a glob; "**" is any number of names."""
    if not globs or not names:
        return not names and set(globs) <= {"**"}
    if globs[0] == "**":
        return _match(names, globs[1:]) or _match(names[1:], globs)
    return _fits(names[0], globs[0]) and _match(names[1:], globs[1:])


def _labels(path, folders):
    """The label of each class folder, from its name."""
    labels = {}
    for folder in folders:
        try:
            folder.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The name of class folder {os.fsencode(folder)!r} in {str(path)!r} is not UTF-8, but a label must be "
                "text that can be drawn and saved. Rename the folder."
            ) from error
        label = _nfc(folder)
        if label in labels.values():
            same = next(other for other, given in labels.items() if given == label)
            raise ValueError(
                f"Class folders {same!a} and {folder!a} in {str(path)!r} are one name, {label!r}, in two Unicode "
                "forms, and would be one class. Move their images into one of them, or rename one."
            )
        labels[folder] = label
    return labels


# ---- words -------------------------------------------------------------------------------------------------------


def _given(path, pattern):
    return f"path={str(path)!r}" + ("" if pattern is None else f" with pattern={pattern!r}")


def _quoted(names):
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _some(files):
    return _quoted(["/".join(names) for names in files[:4]]) or "nothing"


def _no_images(folder, pattern, advice):
    held = _quoted(_visible(folder)) or "nothing"
    wanted = "images that Pillow reads" if pattern is None else f"images of pattern={pattern!r}"
    advice = advice or f"{LAYOUT} Pass the folder right above the class folders as path."
    return ValueError(
        f"Class folder {str(folder)!r} holds no {wanted} (it holds {held}). {advice} Or move this folder elsewhere."
    )


def _advice(path, known):
    """Possible paths and patterns, from images that lie deeper than CLASS/FILE."""
    deeper = sorted(names for names in known if len(names) > 2)
    if not deeper:
        return ""
    options = []
    first = deeper[0][0]
    below = sorted({names[1] for names in deeper if names[0] == first})
    if len(below) > 1:
        options.append(f"path={str(path / first)!r} where the classes are {_quoted(below)}")
    folders = sorted({names[0] for names in known if len(names) > 1})
    inside = {names[1:-1] for names in known if len(names) > 1}
    if len(folders) > 1:
        glob = "/".join(("*", *inside.pop(), "*")) if len(inside) == 1 else "**/*"
        options.append(f"pattern={glob!r} where the classes are {_quoted(folders)}")
    return f"There are images deeper, {_some(deeper)}: pass {', or '.join(options)}." if options else ""


def _advice_above(path, folder):
    """Path and pattern if `path` is a class folder, and each class folder has a subfolder of this name."""
    above = path.resolve().parent
    classes = [
        name for name in (_visible(above) if os.access(above, os.R_OK) else []) if (above / name / folder).is_dir()
    ]
    if len(classes) < 2:
        return ""
    return f"Pass path={str(above)!r}, pattern={f'*/{folder}/*'!r} where the classes are {_quoted(classes)}."
