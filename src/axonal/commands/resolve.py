"""Networks and samples that users name on the command line."""

import importlib
import json
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..convert.onnx.read import from_onnx
from ..core import files
from ..core.errors import FileError, InputError
from ..data import ASSETS
from ..data.images import DATASETS
from ..models.base import CONFIG, Model
from ..models.classifier import Classifier
from ..models.resnet import ResNet
from ..models.vgg import VGG
from ..models.vit import ViT
from ..recipes.image_classifiers import PICTURES, QUANTISED
from ..recipes.training import CARD

CLASSES: Sequence[type[Model]] = (Classifier, VGG, ResNet, ViT)  # of folders without a recipe
KINDS: dict[str, type[Model]] = {  # of the networks that classify images, by their recipes
    **{f"{data}-classifier": Classifier for data in DATASETS},
    **{name: task.kind for name, task in PICTURES.items()},
    **{name: PICTURES[base].kind for name, (base, _) in QUANTISED.items()},
}
LARGEST = 1 << 30  # bytes of an array
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as numpy writes
_DAMAGE = (OSError, EOFError, ValueError, TypeError, RuntimeError, MemoryError)
_DAMAGE += (zipfile.BadZipFile, zlib.error, SafetensorError)
CODE = (
    "write a function that builds the network and loads its weights, and pass "
    "package.module:function"
)
PICKLE = f"is a pickle, which can run code when it is read; {CODE}, with weights_only=True"
FILES = {  # of networks, that are not read, by the ends of their names
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".pkl", ".bin"), PICKLE),
    ".pt2": "is an archive of torch.export, which runs code when torch reads it (pickles, and "
    "expressions that are evaluated); if you trust it, write torch.onnx.export(torch.export.load"
    "(path), f='network.onnx') and pass network.onnx",
    ".safetensors": "has weights and no network; pass its folder, if config.json is there, too; "
    f"else {CODE}",
    ".gguf": f"has weights and no network; {CODE}",
    ".py": "is code; pass package.module:function, without .py",
}
Samples = tuple[Tensor, Tensor | None]  # [N, ...] as a network takes them; classes, targets


def network(source: str) -> tuple[nn.Module, Path | None]:
    """Load a network; and the folder that holds it, if it is one of ours.

    Args:
        source: a classifier that ships, a folder that `axonal train` made of one, or
            "package.module:function": the user's own code, which is imported (from the working
            folder, too) and called; the function returns a `torch.nn.Module`. A file of ONNX; or
            a folder with the config.json and model.safetensors of a classifier of `models`.

    Raises:
        InputError: none of these, or a network that is no classifier. FileError: damaged files.
    """
    places = (ASSETS / source, Path(source), Path(source) / "model")
    folder = next((place for place in places if (place / CARD).is_file()), None)
    if folder is None and ":" in source:
        return _from_code(source), None
    if folder is None and Path(source).suffix.lower() == ".onnx":
        return from_onnx(source), None
    if folder is None and (reason := FILES.get(Path(source).suffix.lower())):
        raise InputError(f"{files.readable(source)} {reason}")
    if folder is None and (Path(source) / CONFIG).is_file():
        return _from_folder(Path(source)), Path(source)
    if folder is None and any(Path(source).glob("*.safetensors")):
        raise InputError(f"{source} has weights and no config.json; {CODE}")
    if folder is None:
        ours = ", ".join(name for name in KINDS if (ASSETS / name).is_dir())
        raise InputError(
            f"{source!r} is no network; name one that ships ({ours}), a folder that train made, or "
            "package.module:function, which returns a torch module, or a .onnx file"
        )
    try:
        recipe = str(json.loads((folder / CARD).read_text())["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {folder / CARD}: {error!r}; train it again") from error
    if recipe not in KINDS:
        known = ", ".join(KINDS)
        raise InputError(f"{source} is of the recipe {recipe!r}; choose one of {known}")
    model = KINDS[recipe].load(folder)
    return _without_checks(model) if isinstance(model, Classifier) else model, folder


def _without_checks(model: Classifier) -> nn.Module:
    """The same layers without the check of their input, which torch.fx can't follow."""
    layers = OrderedDict[str, nn.Module]()
    for i, layer in enumerate((*model.convolutions, model.hidden)):
        layers |= {"flatten": nn.Flatten()} if layer is model.hidden else {}
        layers |= {f"layer_{i}": layer, f"relu_{i}": nn.ReLU()}
    return nn.Sequential(layers | {"head": model.head}).eval()


def _from_folder(folder: Path) -> nn.Module:
    """The network of config.json and weights: of the architecture that has these settings."""
    try:
        about = dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"can't read {folder / CONFIG}: {error}; write it again") from error
    for kind in CLASSES:
        if {*about} == {field.name for field in fields(kind.Config)}:
            model = kind.load(folder)
            return _without_checks(model) if isinstance(model, Classifier) else model
    names = about.get("architectures") or about.get("model_type") or sorted(about)
    ours = ", ".join(kind.__name__ for kind in CLASSES)
    raise InputError(f"{folder} holds {names}, none of {ours}; export it to ONNX, or {CODE}")


def _from_code(source: str) -> nn.Module:
    """Call the user's function "package.module:function", which returns a network."""
    path, _, name = source.rpartition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(path), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"can't find {source}: {error}; say package.module:function") from error
    model = function() if callable(function) and not isinstance(function, nn.Module) else function
    if not isinstance(model, nn.Module):
        returned = type(model).__name__
        raise InputError(f"{source} returns {returned}; let it return a torch.nn.Module")
    return model.eval()


def samples(data: str, counts: Sequence[int], seed: int = 0, stream: bool = False) -> list[Samples]:
    """Draw sets of samples that have none in common.

    Args:
        data: "mnist" or "cifar10", of which the last set is of test images and others of training
            images; or a .npz or .safetensors file with "x" [N, ...], numbers as the network takes
            them, and, if they are known, classes as "label" [N], integers, or targets as "target"
            [N, ...], real numbers of the form that the network returns.
        counts: of samples in each set; where there are fewer, these are shared out in proportion.
        seed: of the draw.
        stream: take the first in their order, and draw none.

    Raises:
        InputError: no such data, a set without a sample, or arrays of another form. FileError: a
            file is missing or damaged.
    """
    if wrong := [count for count in counts if count < 1]:
        raise InputError(f"{wrong[0]} samples can't be drawn; --samples and --held-out begin at 1")
    if data in DATASETS:
        splits = ["train"] * (len(counts) - 1) + ["test"]
        sets: list[Samples] = []
        for split, count in zip(splits, counts, strict=True):
            images = DATASETS[data](split)
            (pick,) = _picks(len(images), [count], seed, stream)
            pixels = torch.from_numpy(images.pixels[pick]).float().div(127.5).sub(1)
            sets.append((pixels, torch.from_numpy(images.labels[pick])))
        return sets
    x, labels = _read(Path(data))
    picks = _picks(len(x), counts, seed, stream)
    return [(x[pick], None if labels is None else labels[pick]) for pick in picks]


def _picks(rows: int, counts: Sequence[int], seed: int, stream: bool) -> list[np.ndarray]:
    """The rows of each set, of so many."""
    asked = max(sum(counts), 1)
    sizes = [count * min(rows, asked) // asked for count in counts]
    if min(sizes) < 1:
        raise InputError(f"{rows} samples can't give sets of {', '.join(map(str, counts))}")
    order = np.arange(rows) if stream else np.random.default_rng(seed).permutation(rows)
    return np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])


def _read(path: Path) -> Samples:
    """All samples of a file, checked."""
    readers = {".npz": _arrays, ".safetensors": load_file}
    if path.suffix not in readers:
        raise InputError(f"{path} is no data; say {', '.join(DATASETS)}, or a .npz or .safetensors")
    files.readable(path)
    try:
        arrays: dict[str, Tensor] = readers[path.suffix](path)
    except _DAMAGE as error:
        raise FileError(f"can't read {path}: {error}; write it again") from error
    x, label = arrays.get("x"), arrays.get("label")
    if x is not None and x.dim() and not len(x):
        raise InputError(f"{path}: x is {list(x.shape)}: it holds no samples")
    if x is not None and x.dtype == torch.uint8:
        raise InputError(
            f"{path}: x holds bytes; scale them as in training and save floats, for images in "
            "[-1, 1] np.savez(path, x=(x / 127.5 - 1).astype('float32'))"
        )
    if x is None or x.dim() < 2 or not x.is_floating_point():
        shape = "missing" if x is None else f"{x.dtype} {list(x.shape)}"
        raise InputError(f"{path}: x is {shape}; it must be floating-point numbers [N, ...]")
    if not bool((x := x.float()).isfinite().all()):
        raise InputError(f"{path}: x holds NaN or infinity")
    if label is None:
        return x, _target(path, arrays.get("target"), len(x))
    if label.shape != x.shape[:1] or label.is_floating_point() or label.is_complex():
        shape = f"{label.dtype} {list(label.shape)}"
        raise InputError(f"{path}: label is {shape}; it must be integers [{len(x)}]")
    return x, label.long()


def _target(path: Path, target: Tensor | None, rows: int) -> Tensor | None:
    if target is None:
        return None
    if len(target) != rows or not target.is_floating_point():
        shape = f"{target.dtype} {list(target.shape)}"
        raise InputError(f"{path}: target is {shape}; it must be real numbers [{rows}, ...]")
    return target.float()


def _arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a .npz file, unless they unpack into too much."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():  # before a small file unpacks into much
            if info.file_size > LARGEST or info.compress_type not in COMPRESSIONS:
                raise ValueError(f"{info.filename} announces {info.file_size:,} bytes")
    with np.load(path, allow_pickle=False) as file:
        return {
            name: torch.from_numpy(file[name]) for name in ("x", "label", "target") if name in file
        }
