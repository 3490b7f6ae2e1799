"""What a bundle predicts for one picture: answers by key, the classes' names, and the overlay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pointrend_deploy.errors import DeployError, UsageError
from pointrend_deploy.pictures.given import Color, Given, in_order

UInt8 = npt.NDArray[np.uint8]


class Prediction(dict[str, Any], ABC):
    """The base class of all predictions: a dictionary of answers that can be drawn.

    Each kind of model adds its keys and says how its answers are drawn.

    Attributes:
        class_names: of the recipe, by class number.
        picture_hw: height and width of the picture.
    """

    class_names: tuple[str, ...]
    picture_hw: tuple[int, int]
    _picture: tuple[Given, Color] | None = None

    def __missing__(self, key: object) -> Any:
        raise KeyError(f"{key!r}: {self._keys()}")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}: {self._keys()}")

    def _keys(self) -> str:
        answers = ", ".join(f"result[{key!r}]" for key in self)
        return f"this model's answers are {answers}"

    @abstractmethod
    def drawn_on(self, rgb: UInt8, above: float | None = None) -> UInt8:
        """Draw the answers on their picture, as `run` does.

        Args:
            rgb: the picture, (H, W, 3) uint8 RGB.
            above: lowest score that is drawn, in [0, 1]; None for the usual one. Only for answers
                with scores.

        Returns:
            (H', W', 3) uint8 RGB: the picture's size, or an enlarged small picture.

        Raises:
            UsageError: ``above`` is out of range, or the answers have no scores.
        """

    def note_picture(self, picture: Given, color: Color) -> None:
        """Note the picture, for :meth:`draw`: as it was given, and an array's channel order."""
        self._picture = picture, color

    def draw(self, above: float | None = None) -> Image.Image:
        """Draw the answers on their picture: the overlay that `run` writes, before it is encoded.

        An array is not copied when it is predicted, and a file is read again here, so neither may
        be changed in between.

        Args:
            above: lowest score that is drawn, in [0, 1]; None for 0.5. Only for instances.

        Returns:
            A PIL picture in RGB; ``numpy.asarray`` makes an array of it.

        Raises:
            DeployError: the picture is not known, cannot be read again, or has another size now.
            UsageError: ``above`` is no number or out of range, or the answers have no scores.
        """
        if above is not None and (isinstance(above, bool) or not isinstance(above, Real)):
            raise UsageError(
                f"above is the lowest score to draw, a number from 0 to 1, not {above!r}",
                "a file is written by draw().save(path)",
            )
        if self._picture is None:
            raise DeployError(
                "this prediction does not know its picture", "predict by calling the runner"
            )
        picture, color = self._picture
        rgb = in_order(picture, "rgb", color)
        if rgb.shape[:2] != self.picture_hw:
            raise DeployError(
                f"the picture was {self.picture_hw[0]}x{self.picture_hw[1]} when it was predicted, "
                f"and is {rgb.shape[0]}x{rgb.shape[1]} now",
                "draw before the picture is changed",
            )
        return Image.fromarray(np.ascontiguousarray(self.drawn_on(rgb, above)))
