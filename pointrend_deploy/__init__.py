"""PointRend, from a PyTorch checkpoint to a verified deployable bundle.

The public verbs are imported when first used, so that ``import pointrend_deploy`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pointrend_deploy.errors import DeployError, ParityError

if TYPE_CHECKING:
    from pointrend_deploy.model.architectures import load_model
    from pointrend_deploy.recipe import load_recipe
    from pointrend_deploy.run.runner import open_runner

__version__ = "0.1.0"
__all__ = ["DeployError", "ParityError", "__version__", "load_model", "load_recipe", "open_runner"]

_HOMES = {
    "load_model": "pointrend_deploy.model.architectures",
    "load_recipe": "pointrend_deploy.recipe",
    "open_runner": "pointrend_deploy.run.runner",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
