"""Features of images, as a network sees them: what the quality measures compare.

A `Features` is a function from images [N, C, H, W] uint8 (numpy or torch) to [N, D] float64.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import FileError, InputError
from ..core.extras import require
from ..data import ASSETS
from ..models.classifier import Classifier

Features = Callable[[np.ndarray | Tensor], np.ndarray]


def classifier_features(name: str = "mnist") -> Features:
    """The penultimate activations of the classifier that ships for the data set `name`.

    Raises:
        InputError: no classifier of that name ships. FileError: its files are damaged.
    """
    return network_features(Classifier.load(asset(name)))


def network_features(network: Classifier) -> Features:
    """The penultimate activations of `network`, in evaluation mode and on the device it is on.

    Returns:
        A `Features` for images of the network's shape; it raises InputError for others.
    """

    def features(images: np.ndarray | Tensor) -> np.ndarray:
        device, rows = network.head.weight.device, []
        with torch.inference_mode():
            for pixels in _batches(images, 500):
                x = pixels.to(device).float().div(127.5).sub(1)
                rows.append(network.features(x).double().cpu().numpy())
        return np.concatenate(rows)

    return features


def asset(name: str) -> Path:
    """The folder of the classifier that ships for the data set `name`.

    Raises:
        InputError: none ships.
    """
    folder = ASSETS / f"{name}-classifier"
    if not folder.is_dir():
        raise InputError(
            f"no classifier of {name!r} ships; pass `features`, of `network_features` or "
            "`onnx_features`, with data=True"
        )
    return folder


def onnx_features(
    path: str | Path, span: tuple[float, float] = (0.0, 1.0), size: int = 299, batch: int = 32
) -> Features:
    """The output of a local ONNX network: with Inception-v3's pool3, the usual FID's features.

    The network takes [B, 3, H, W] float32 and returns [B, D] (or [B, D, 1, 1]). Images are scaled
    from 0..255 to `span`, grey ones repeated to three channels, and resized bilinearly, with
    antialiasing where they shrink (Parmar et al. 2022, arXiv 2104.11222), to the H x W that the
    file declares. FIDs compare only between equal files, spans and resizing: state them.

    Args:
        path: the file; nothing is downloaded.
        span: what black and white become; (0, 1) for exports that normalise inside.
        size: H and W where the file leaves them free.
        batch: images run at once; 1 is used where the file asks for it.

    Raises:
        FileError: there is no such file, or it is no ONNX network.
        InputError: its input is not as above.
        MissingExtra: onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(
            f"there is no file {path}: export Inception-v3 up to its 2048 pool3 features to ONNX "
            "and place it there, or give the path where it lies"
        )
    session = _session(path)
    entry = session.get_inputs()[0]
    if len(entry.shape) != 4 or entry.shape[1] != 3 or entry.type != "tensor(float)":
        raise InputError(f"{path} takes {entry.type} {entry.shape}; it must be float [B, 3, H, W]")
    fixed, _, *sides = entry.shape
    if isinstance(fixed, int) and fixed != 1:
        raise InputError(f"{path} takes {fixed} images at once; export it with a free batch size")
    height, width = (side if isinstance(side, int) else size for side in sides)
    low, high = span

    def features(images: np.ndarray | Tensor) -> np.ndarray:
        rows = []
        for pixels in _batches(images, fixed if isinstance(fixed, int) else batch):
            x = pixels.float().mul((high - low) / 255).add(low).expand(-1, 3, -1, -1)
            x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
            (out, *_) = session.run(None, {entry.name: x.contiguous().numpy()})
            rows.append(out.reshape(len(out), -1).astype(np.float64))
        return np.concatenate(rows)

    return features


def _session(path: Path):
    runtime = require("onnxruntime", "fid")
    try:
        return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base but this
        raise FileError(
            f"{path} is no ONNX network that runs here ({error}); export it again"
        ) from error


def _batches(images: np.ndarray | Tensor, batch: int) -> Iterator[Tensor]:
    pixels = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise InputError(
            f"images are {pixels.dtype} {pixels.shape}; they must be uint8 [N, C, H, W] "
            "with 1 or 3 channels"
        )
    if not len(pixels):
        raise InputError("images: there are none")
    for start in range(0, len(pixels), batch):
        yield torch.tensor(pixels[start : start + batch])
