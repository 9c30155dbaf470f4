"""Triptych: one transformer encoder for images, time series and speech.

The public names below are imported on first use (PEP 562), so that `import triptych`, and with it the
command line's help, loads neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones.attention import attend as attend
    from .backbones.encoder import Encoder as Encoder
    from .objectives.objective import Loss as Loss
    from .objectives.objective import Objective as Objective
    from .tasks.fit import fit as fit
    from .tasks.model import Model as Model
    from .tasks.run import load as load
    from .tasks.weights.port import import_weights as import_weights
    from .tokenizers.errors import UserError as UserError
    from .tokenizers.tokens import Tokens as Tokens
    from .tokenizers.view import View as View

__version__ = "0.1.0"

PUBLIC = {
    "Encoder": "backbones.encoder",
    "Loss": "objectives.objective",
    "Model": "tasks.model",
    "Objective": "objectives.objective",
    "Tokens": "tokenizers.tokens",
    "UserError": "tokenizers.errors",
    "View": "tokenizers.view",
    "attend": "backbones.attention",
    "fit": "tasks.fit",
    "import_weights": "tasks.weights.port",
    "load": "tasks.run",
}
"""Each public name and the module, relative to the package, that defines it."""


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name. Raises AttributeError for any other name."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
