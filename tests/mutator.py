"""Broken, hostile and foreign model files, made from a good one: mutation number i of a seed is always the same.

    name, mutated = mutation(content, seed, i, canary)
    found = examine(path, load, same)

Accidents leave the file's checksum as it is. Attacks compute it again, as an attacker would, so that they meet the
checks behind it; none of them is another good model.
"""

import ctypes
import gc
import gzip
import io
import json
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import joblib
import numpy as np
import torch

from skgcm import ModelFileError
from skgcm.files import safetensors_file

WIDE = {"array": {"dtype": "<U262143", "shape": [1], "items": [""]}}  # a MiB in memory
ALLOWANCE = 64 * 2**20  # bytes that opening may take in addition to twice the size of the file


class Malice:
    """Makes a file where it is unpickled."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return open, (self.canary, "w")


def split(content):
    """Header as a dict, and the tensors' bytes."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header, data, text=None):
    """A file of a header (or of its `text`) and the tensors' bytes."""
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text)) + text + data


def sign(header, data):
    """Compute the checksum again; it stays the same if the tensors are invalid, because then it is not compared."""
    strings = header["__metadata__"]
    try:
        checksum = safetensors_file._checksum_of(strings)
        for name in sorted(header.keys() - {"__metadata__"}):
            start, stop = header[name]["data_offsets"]
            dtype = safetensors_file.DTYPES[header[name]["dtype"]]
            part = np.frombuffer(data[start:stop], np.uint8).copy()
            safetensors_file._add(checksum, name, torch.from_numpy(part).view(dtype).reshape(header[name]["shape"]))
        strings["sha256"] = checksum.hexdigest()
    except (KeyError, RuntimeError, TypeError):
        pass
    return join(header, data)


# ---- accidents -------------------------------------------------------------------------------------------------------


def bit_flip(content, rng):
    return flipped(content, rng, len(content), 1)


def bit_flips(content, rng):
    return flipped(content, rng, len(content), rng.integers(2, 100))


def header_flip(content, rng):
    return flipped(content, rng, 8 + struct.unpack("<Q", content[:8])[0], 1)


def length_flip(content, rng):
    return flipped(content, rng, 8, 1)


def flipped(content, rng, below, n):
    changed = bytearray(content)
    for bit in rng.integers(0, 8 * below, n):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def truncation(content, rng):
    """At a boundary of the format, or a byte next to one."""
    header, data = split(content)
    start = len(content) - len(data)
    ends = [start + spec["data_offsets"][1] for name, spec in header.items() if name != "__metadata__"]
    marks = [i for i, byte in enumerate(content[8:start], 8) if byte in b'{}[],:"']
    at = rng.choice([0, 8, start, *ends, rng.choice(marks)]) + rng.integers(-1, 2)
    return content[: min(max(at, 0), len(content) - 1)]


def extension(content, rng):
    return content + rng.bytes(rng.integers(1, 5000))


def block_swap(content, rng):
    changed, size = bytearray(content), min(512, len(content) // 4)
    i, j = size * rng.choice(len(content) // size - 1, 2, replace=False)
    changed[i : i + size], changed[j : j + size] = content[j : j + size], content[i : i + size]
    return bytes(changed)


def zero_block(content, rng):
    at = rng.integers(0, len(content) - 8)
    return content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :]


def swapped_tensors(content, rng):
    """Two of the same shape, or two names of any."""
    header, data = split(content)
    names = sorted(header.keys() - {"__metadata__"})
    first = header[rng.choice(names)]
    alike = [name for name in names if header[name]["shape"] == first["shape"] and header[name] is not first]
    other = header[rng.choice(alike or names)]
    if alike:
        first["data_offsets"], other["data_offsets"] = other["data_offsets"], first["data_offsets"]
    else:
        a, b = rng.choice(names, 2, replace=False)
        header[a], header[b] = header[b], header[a]
    return join(header, data)


def swapped_fields(content, rng):
    """Of the metadata, or of the parameters or network's parameters in it."""
    header, data = split(content)
    metadata = json.loads(header["__metadata__"]["metadata"])
    fields = [metadata, metadata["params"], metadata["network"]][rng.integers(3)]
    a, b = rng.choice(sorted(fields), 2, replace=False)
    fields[a], fields[b] = fields[b], fields[a]
    header["__metadata__"]["metadata"] = json.dumps(metadata)
    return join(header, data)


def swapped_strings(content, rng):
    header, data = split(content)
    strings = header["__metadata__"]
    a, b = rng.choice(sorted(strings), 2, replace=False)
    strings[a], strings[b] = strings[b], strings[a]
    return join(header, data)


# ---- attacks on the format -------------------------------------------------------------------------------------------


def long_header(content, rng):
    """A length that is not there, or is, and filled with spaces."""
    limit = safetensors_file.MAX_HEADER
    lengths = (len(content) - 7, len(content), limit + 1, 10**8 - 1, 10**8, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
    if rng.random() < 0.7:
        return struct.pack("<Q", rng.choice(np.array(lengths, dtype=np.uint64))) + content[8:]
    header, data = split(content)
    return join(None, data, json.dumps(header).encode().ljust(limit + int(rng.integers(1, limit))))


def wrong_spec(content, rng):
    """A tensor whose shape, type or place is another."""
    header, data = split(content)
    spec = header[rng.choice(sorted(header.keys() - {"__metadata__"}))]
    shape, (start, stop) = spec["shape"], spec["data_offsets"]
    size = stop - start
    changes = [
        {"shape": [*shape, 1]},
        {"shape": [1, *shape]},
        {"shape": [2**40, 2**40]},
        {"shape": [2**63]},
        {"shape": [-1]},
        {"shape": [0]},
        {"shape": [1.5]},
        {"shape": [10**400]},
        {"shape": [1] * 2000},
        {"shape": [1] * 340_000},
        {"dtype": "U8", "shape": [size]},
        {"dtype": "F16", "shape": [size // 2]},
        {"dtype": "BOOL", "shape": [size]},
        {"dtype": "F64" if spec["dtype"] == "I64" else "I64", "shape": shape},
        {"dtype": "F8_E4M3"},
        {"dtype": "object"},
        {"dtype": None},
        {"data_offsets": [stop, start]},
        {"data_offsets": [start, stop + 4]},
        {"data_offsets": [start + 4, stop + 4]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [-8, stop]},
    ]
    spec.update(changes[rng.integers(len(changes))])
    return sign(header, data)


def other_tensors(content, rng):
    """One more, one less, one renamed, thousands of empty ones, or one of many axes."""
    header, data = split(content)
    name, kind = rng.choice(sorted(header.keys() - {"__metadata__"})), rng.integers(6)
    end = len(data)
    if kind == 0:
        start, stop = header.pop(name)["data_offsets"]
        data = data[:start] + data[stop:]
        for spec in header.values():
            if "data_offsets" in spec and spec["data_offsets"][0] >= stop:
                spec["data_offsets"] = [at - (stop - start) for at in spec["data_offsets"]]
    elif kind == 1:
        header["more"], data = {"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]}, data + bytes(8)
    elif kind == 2:
        header[str(rng.choice(["", "../../x", "\0", "head.weights", "a" * 9999]))] = header.pop(name)
    elif kind == 3:
        header |= {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [end, end]} for i in range(15_000)}
    else:
        shape = [0, 2**62] if kind == 4 else [0] + [1] * int(10 ** rng.uniform(4, 5.5))
        header["more"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end]}
    return sign(header, data)


def doubled_keys(content, rng):
    """In the header, in its strings or in their JSON."""
    header, data = split(content)
    strings = header["__metadata__"]
    kind = rng.integers(3)
    if kind == 2:
        field = rng.choice(sorted(json.loads(strings["metadata"])))
        strings["metadata"] = strings["metadata"].replace(f'"{field}": ', f'"{field}": 1, "{field}": ', 1)
        return sign(header, data)
    if kind == 1:
        field = rng.choice(sorted(strings))
        again = f'"{field}": "x", "{field}": '
    else:
        field = rng.choice(sorted(header.keys() - {"__metadata__"}))
        again = f'"{field}": {{"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, "{field}": '
    text = json.dumps(header).replace(f'"{field}": ', again, 1)
    return join(header, data, text.encode())  # the last one counts, and is as it was


def not_finite(content, rng):
    header, data = split(content)
    names = [name for name, spec in header.items() if spec.get("dtype") == "F32"]
    start, stop = header[rng.choice(names)]["data_offsets"]
    value = struct.pack("<f", rng.choice([np.nan, np.inf, -np.inf]))
    at = start + 4 * rng.integers((stop - start) // 4)
    return sign(header, data[:at] + value + data[at + 4 :])


def negative_variance(content, rng):
    header, data = split(content)
    start, _ = header[rng.choice([name for name in header if name.endswith("running_var")])]["data_offsets"]
    return sign(header, data[:start] + struct.pack("<f", -rng.random() - 1e-6) + data[start + 4 :])


def other_strings(content, rng):
    """Schema, kind or format of another, or a string more or less."""
    header, data = split(content)
    strings = header["__metadata__"]
    changes = [("schema", s) for s in ("2", "0", "", "1.0", " 1", "\u0661", "9" * 9999, None)]
    changes += [("kind", "checkpoint"), ("kind", "x"), ("kind", None), ("format", "pt"), ("format", None), ("x", "y")]
    changes += [("metadata", s) for s in ("", "null", "[]", "1", "{", '{"a": 1} {}', "\ufeff{}", "{}", None)]
    name, value = changes[rng.integers(len(changes))]
    if value is None:
        strings.pop(name)
    else:
        strings[name] = value
    return sign(header, data)


# ---- attacks on the metadata -----------------------------------------------------------------------------------------


def hard_json(content, rng):
    """Numbers, depths and lengths that a parser chokes on, in place of a value."""
    mark = '"HERE"'
    header, data = split(content)
    metadata = json.loads(header["__metadata__"]["metadata"])
    fields = [metadata, metadata["params"], metadata["network"]][rng.integers(3)]
    fields[rng.choice(sorted(set(fields) - {"versions"}))] = "HERE"
    depth, n = int(10 ** rng.uniform(2.5, 5)), int(10 ** rng.uniform(4, 5.3))
    hard = [
        "9" * int(10 ** rng.uniform(1.5, 5.5)),
        "-" + "9" * 5000,
        "1e999",
        "-1e999",
        "1" * 400 + ".0",
        "NaN",
        "Infinity",
        "-Infinity",
        "[" * depth + "]" * depth,
        '{"tuple":[' * depth + "]}" * depth,
        '{"a":' * depth + "1" + "}" * depth,
        "[" * depth,
        "[" + "[]," * n + "[]]",
        "[" + "{}," * n + "1]",
        "[" + "1.5," * n + "1]",
        "{" + ",".join(f'"{i}":1' for i in range(n)) + "}",
        '"' + "\\ud800" * 1000 + '"',
        '"' + "x" * 500_000 + '"',
        json.dumps([WIDE] * 300),
        json.dumps({"dict": [[i, WIDE] for i in range(300)]}),
    ]
    text = json.dumps(metadata).replace(mark, hard[rng.integers(len(hard))])
    header["__metadata__"]["metadata"] = text
    return sign(header, data)


def wrong_values(content, rng):
    """Values of the right JSON that describe no classifier, or a huge one, or name code."""
    header, data = split(content)
    metadata = json.loads(header["__metadata__"]["metadata"])
    array = metadata["classes"]
    options = {
        "params": [
            {name: value}
            for name, values in {
                "unknown": [1],
                "__class__": ["x"],
                "n_classes": [1, 2.5, "3", True, [3]],
                "n_stages": [0, -1, "x", None],
                "device": ["gpu", "cuda:99", "meta", {"device": "xpu"}, "cuda:" + "9" * 30, 0, {"device": 1}],
                "optimizer": ["os.system", "lion", None, 1],
                "augment": ["os.system", "spin", 1, ["shift"]],
                "architecture": ["resnet", 1, None],
                "callbacks": [["os.system"], [["print_log", 1]], "x", {"tuple": []}],
                "net_params": [
                    {"dict": [[key, value]]}
                    for key, value in (
                        ("compile__options", {"dict": [["cpp.cxx", "/bin/sh"]]}),
                        ("compile__backend", "os.system"),
                        ("torch_load_kwargs", {"dict": [["weights_only", False]]}),
                        ("criterion", "os.system"),
                        ("module", "os.system"),
                        ("iterator_train", "x"),
                        ("criterion__unknown", 1),
                        ("criterion__weight", [1, 2]),
                        ("optimizer__momentum", -1),
                        ("optimizer__unknown", 1),
                        ("callbacks__early_stopping__sink", "x"),
                    )
                ],
                "random_state": [-1, 2**40, 1.5, "x"],
                "lr": [0, -1, "x", None, [1]],
                "batch_size": [0, 1.5, "many"],
                "image_shape": [1, "x", [], [8.0, 8], {"tuple": [0, 8]}],
                "value_range": [
                    [1, 0],
                    ["a", "b"],
                    {"array": array | {"dtype": "<U9999999"}},
                    {"array": array | {"shape": [2**62, 4]}},
                ],
                "class_weight": [1, {"dict": [[[1], 2]]}, {"dict": [1]}, {"dict": 1}, {"set": []}, {"a": 1, "b": 2}],
                "verbose": [-1, "x", {"pickle": "gASVHgAA"}],
            }.items()
            for value in values
        ],
        "network": [
            {name: value}
            for name, values in {
                "n_stages": [0, 2, 4, 7, 40, 63, 64, 10**6, 10**18, "3", 3.0, None],
                "encoder_width": [0, 1, 5, 10**4, 2**31, 10**18, -1],
                "decoder_width": [0, 1, 5, 10**4, 2**31, 10**18, [4]],
                "polarity": ["dark", 1],
                "architecture": ["paper", "resnet", 1, None],
                "upsampling": ["bilinear", None],
                "shared_decoder": ["yes", 2, None],
                "unknown": [1],
            }.items()
            for value in values
        ],
        "classes": [
            {"items": array["items"][::-1]},
            {"items": array["items"] * 2, "shape": [2 * len(array["items"])]},
            {"items": array["items"][:1], "shape": [1]},
            {"items": [], "shape": [0]},
            {"items": [None] * len(array["items"])},
            {"items": 5},
            {"shape": [-2]},
            {"shape": [1] * 99},
            *({"dtype": dtype} for dtype in ("<U0", "<U9999999", "|O", "<i3", "<V8", "<M8[s]", "object", "<c16", 1)),
            {"dtype": "<f16"},
        ],
    }
    if array["dtype"] == "|O":
        options["classes"].remove({"dtype": "|O"})
    whole = {
        "image_shape": [
            [0, 8, 1],
            [8, 8],
            [8.0, 8, 1],
            ["8", 8, 1],
            [1, 10**18, True],
            8,
            "881",
            {"a": 1, "b": 2, "c": 3},
        ],
        "channels_first": [0, "yes", None],
        "value_range": [[1, 0], [0, 0], [0], "01", None, [0, 1, 2], [0, "x"], {"tuple": [0, 1]}],
        "feature_names_in": [[], ["a"], "x" * 64, [1] * 64, 5],
        "history": [1, None, [1], [{"a": []}], [{"batches": 1}], {"a": 1}]
        + [metadata["history"] | {"epochs": n} for n in (-1, 0, 10**4, 10**6, 10**18, True, 1.0, "1")]
        + [metadata["history"] | {"others": others} for others in ({"dur": []}, {"a": [[0, 1]]}, [], None)]
        + [metadata["history"] | {"names": names} for names in ([], ["epoch"] * 4, ["batches"], [[]], 5)]
        + [{"epochs": 1, "names": ["a"], "others": {"a": column}} for column in ([[2, 1]], [[0, []]], [0], 5)],
    }
    field = rng.choice([*options, *whole])
    if field in whole:
        metadata[field] = whole[field][rng.integers(len(whole[field]))]
    else:
        changes = options[field][rng.integers(len(options[field]))]
        if field == "network" and changes.items() <= metadata["network"].items():
            changes = {"unknown": 1}
        metadata[field] |= changes
    if rng.random() < 0.1:
        metadata.pop(rng.choice(sorted(metadata)))
    header["__metadata__"]["metadata"] = json.dumps(metadata)
    return sign(header, data)


# ---- other files -----------------------------------------------------------------------------------------------------


def foreign(content, rng, canary):
    """A file of another kind under a model's name; what can hold code does."""
    malice, buffer = Malice(canary), io.BytesIO()
    kind = rng.integers(14)
    if kind < 6:
        return pickle.dumps([malice, content[:99]], protocol=kind)
    if kind == 6:
        joblib.dump({"model": malice}, buffer)
    elif kind == 7:
        joblib.dump({"model": malice, "weights": np.zeros(99)}, buffer, compress=("zlib", 3))
    elif kind == 8:
        torch.save({"a": malice, "b": torch.zeros(9)}, buffer)
    elif kind == 9:
        torch.save({"a": malice, "b": torch.zeros(9)}, buffer, _use_new_zipfile_serialization=False)
    elif kind == 10:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("model.gcm", content)
    elif kind == 11:
        np.save(buffer, np.array([malice], dtype=object), allow_pickle=True)
    elif kind == 12:
        return gzip.compress(content)
    else:
        return [rng.bytes(5000), b"", b"\n" * 5000, b"{}", bytes(5000), b"\x93NUMPY", pickle.dumps(malice) + content][
            rng.integers(7)
        ]
    return buffer.getvalue()


MUTATIONS = (
    *(bit_flip, bit_flips, header_flip, length_flip, truncation, extension, block_swap, zero_block),
    *(swapped_tensors, swapped_fields, swapped_strings),
    *(long_header, wrong_spec, other_tensors, doubled_keys, not_finite, negative_variance, other_strings),
    *(hard_json, wrong_values, foreign),
)


def mutation(content, seed, i, canary):
    """The name of mutation i, and the mutated file."""
    rng, mutate = np.random.default_rng([seed, i]), MUTATIONS[i % len(MUTATIONS)]
    more = (canary,) if mutate is foreign else ()
    return mutate.__name__, mutate(content, rng, *more)


# ---- what a reader does with it --------------------------------------------------------------------------------------

WATCHED = {"pickle.find_class", "exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
WATCHED |= {"subprocess.Popen", "os.spawn", "socket.connect", "os.remove", "os.rename", "os.mkdir", "ctypes.dlopen"}
_seen = None


def _watch(event, arguments):
    if _seen is not None and (event in WATCHED or (event == "open" and _writes(arguments))):
        _seen.append(f"{event} {arguments}"[:200])


def _writes(arguments):
    _, mode, flags = arguments
    return any(letter in (mode or "") for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR)


def peak(name):
    """VmRSS or VmHWM in bytes, of Linux."""
    return 1024 * int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])


def examine(path, load, same):
    """What happens where a file is loaded: {"outcome", "message", "seconds", "memory" in bytes, "events"}.

    outcome is "identical", "refused" or what is wrong. Memory is what this process had at most, more than before;
    events are what Python audits and a reader has no business with.
    """
    global _seen
    if not getattr(examine, "watching", False):
        sys.addaudithook(_watch)
        examine.watching = True
        gc.collect()
        gc.freeze()  # what there is already need not be looked through each time
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # so that memory freed before is not there to be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, start, _seen = peak("VmRSS"), time.perf_counter(), []
    model, error = None, None
    try:
        model = load(path)
    except Exception as raised:
        error = raised
    seconds, events, _seen = time.perf_counter() - start, _seen, None
    memory = peak("VmHWM") - before
    if error is None:
        outcome = "identical" if same(model) else "DIFFERENT"
    else:
        outcome = "refused" if isinstance(error, ModelFileError) else f"RAISED {type(error).__name__}"
    message = "" if error is None else str(error).replace(str(path), "FILE")
    return {"outcome": outcome, "message": message, "seconds": seconds, "memory": memory, "events": events}
