"""What users name on the command line to be converted: a network, and samples of its data."""

import importlib
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.errors import FileError, InputError
from ..data.images import DATASETS
from ..generate.features import ASSETS
from ..models.base import Model
from ..models.classifier import Classifier
from .batches import images
from .classifiers import PICTURES, QUANTISED
from .training import CARD

KINDS: dict[str, type[Model]] = {f"{data}-classifier": Classifier for data in DATASETS}
KINDS |= {name: task.kind for name, task in PICTURES.items()}
KINDS |= {name: PICTURES[base].kind for name, (base, _) in QUANTISED.items()}
LARGEST = 1 << 32  # bytes of an array
_DAMAGE = (OSError, EOFError, KeyError, ValueError, RuntimeError, SyntaxError)
_DAMAGE += (zipfile.BadZipFile, zlib.error, SafetensorError)
Samples = tuple[Tensor, Tensor | None]  # [N, ...] as the network takes them; classes [N]


def network(what: str) -> tuple[nn.Module, Path | None]:
    """A network, and the folder that it is from.

    Args:
        what: the name of a classifier that ships, a folder that `axonal train` made of one, or
            "package.module:function": the user's own code, which is imported, also from the
            folder that the command runs in; the function returns a `torch.nn.Module`.

    Raises:
        InputError: none of these. FileError: damaged files.
    """
    places = (ASSETS / what, Path(what), Path(what) / "model")
    folder = next((place for place in places if (place / CARD).is_file()), None)
    if folder is None and ":" in what:
        return _own(what), None
    try:
        recipe = json.loads((folder or Path(what)) / CARD).read_text())["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        pass
