"""PointRend, from a PyTorch checkpoint to a verified deployable bundle.

The public functions are imported when they are first used, so that ``import pointrend_deploy``
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pointrend_deploy.errors import DeployError, ParityError
from pointrend_deploy.packages import NEEDS, require
from pointrend_deploy.version import __version__

if TYPE_CHECKING:
    from pointrend_deploy.model.load import load_model
    from pointrend_deploy.recipe.read import load_any_recipe as load_recipe
    from pointrend_deploy.run.open import open_runner

__all__ = ["DeployError", "ParityError", "__version__", "load_model", "load_recipe", "open_runner"]

_HOMES = {
    "load_model": ("pointrend_deploy.model.load", "load_model"),
    "load_recipe": ("pointrend_deploy.recipe.read", "load_any_recipe"),
    "open_runner": ("pointrend_deploy.run.open", "open_runner"),
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        if name in NEEDS:
            require(name)
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
