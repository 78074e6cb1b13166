"""Models that save and load themselves: safetensors and `config.json`, no pickle."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..core import files
from ..core.config import Config
from ..core.errors import FileError, InputError
from ..nn.neurons import with_current_names

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# TypeError and RuntimeError are how torch refuses sizes that are no integers, or far too large.
_DAMAGE = (OSError, ValueError, TypeError, RuntimeError, SafetensorError)


class Model(nn.Module):
    """A network that knows its own configuration. Subclasses set `Config` and take one."""

    Config: ClassVar[type[Config]]

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write the weights (in `dtype`, or as they are) and the configuration to `folder`.

        Raises:
            FileError: the folder can't be written.
        """
        folder = Path(folder)
        state = self.state_dict()
        tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in state.items()}
        files.write(folder / CONFIG, json.dumps(self.config.to_dict(), indent=2) + "\n")
        files.write(folder / WEIGHTS, save(tensors))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model in `folder`, in float32 and evaluation mode.

        Raises:
            FileError: files are missing, damaged, or belong to another version or model.
        """
        folder = Path(folder)
        try:
            values: Any = json.loads((folder / CONFIG).read_text())
            model = cls(cls.Config.from_dict(values))
            tensors = with_current_names(model, load_file(folder / WEIGHTS))
        except _DAMAGE as error:
            remedy = "fetch or train it again"
            if isinstance(error, InputError):
                remedy = "it was written by another version of Axonal; train it again"
            raise FileError(
                f"can't load a {cls.__name__} from {folder}: {error}; {remedy}"
            ) from error
        needed = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        stored = {name: tuple(t.shape) for name, t in tensors.items()}
        if wrong := sorted(n for n in needed | stored if needed.get(n) != stored.get(n)):
            raise FileError(
                f"{folder / WEIGHTS}: {wrong[0]} is {stored.get(wrong[0])} where the model needs "
                f"{needed.get(wrong[0])}; the weights belong to another configuration"
            )
        model.load_state_dict({name: t.float() for name, t in tensors.items()})
        return model.eval()
