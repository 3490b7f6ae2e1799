"""The options of `quantize`, and which of them go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pointrend_deploy.errors import UsageError
from pointrend_deploy.quantize.ranges import Method


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `quantize`. All but the first two are for INT8.

    Patterns are those of :func:`pointrend_deploy.quantize.layers.matched`.

    Attributes:
        precision: precision of the graph to make.
        keep_fp32: patterns of layers to keep in FP32.
        keep_fp16: patterns of layers to keep in FP16.
        also_int8: patterns of layers to put in INT8 that are not by default.
        ranges: file of ranges, or a TensorRT calibration cache; None for the bundle's ranges.json.
        method: how a range is computed from a histogram; None for the method of the calibration.
        percentile: percent of the values inside the range; None for that of the calibration.
        fallback: precision of the layers that are not in INT8.
        sensitivity: whether to measure what each block costs.
        images: folder or list of pictures for ``sensitivity``.
        max_drop: points that may be lost; ``sensitivity`` then proposes blocks to leave out.
        apply: whether to leave the proposed blocks out.
    """

    precision: Literal["fp16", "int8"]
    keep_fp32: tuple[str, ...] = ()
    keep_fp16: tuple[str, ...] = ()
    also_int8: tuple[str, ...] = ()
    ranges: Path | None = None
    method: Method | None = None
    percentile: float | None = None
    fallback: Literal["fp16", "fp32"] = "fp16"
    sensitivity: bool = False
    images: Path | None = None
    max_drop: float | None = None
    apply: bool = False

    def check(self) -> None:
        """Raise UsageError if the options contradict each other."""
        if self.precision == "fp16":
            self._refuse_int8_options()
        if self.percentile is not None:
            if self.method not in (None, "percentile"):
                raise UsageError(
                    f"--percentile is for --method percentile, not {self.method}", "leave one out"
                )
            if not 0 < self.percentile <= 100:
                raise UsageError(f"--percentile {self.percentile:g} is not above 0 and at most 100")
        self._check_sensitivity()

    def _refuse_int8_options(self) -> None:
        given = {
            "--keep-fp16": self.keep_fp16,
            "--also-int8": self.also_int8,
            "--ranges": self.ranges,
            "--method": self.method,
            "--percentile": self.percentile,
            "--fallback": self.fallback != "fp16",
            "--sensitivity": self.sensitivity,
            "--images": self.images,
            "--max-drop": self.max_drop,
            "--apply": self.apply,
        }
        for option, value in given.items():
            if value not in (None, (), False):
                raise UsageError(
                    f"{option} is for --precision int8, not fp16",
                    "to keep layers of an FP16 graph in FP32, use --keep-fp32",
                )

    def _check_sensitivity(self) -> None:
        if not self.sensitivity:
            given = {
                "--images": self.images is not None,
                "--max-drop": self.max_drop is not None,
                "--apply": self.apply,
            }
            for option, is_given in given.items():
                if is_given:
                    raise UsageError(
                        f"{option} is for --sensitivity", "add --sensitivity, or leave it out"
                    )
            return
        if self.images is None:
            raise UsageError(
                "--sensitivity needs pictures to measure on", "give --images: a folder or a list"
            )
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop > 0):
            raise UsageError(f"--max-drop {self.max_drop:g} is not a number of points above 0")
        if self.apply and self.max_drop is None:
            raise UsageError(
                "--apply needs a limit on what may be lost", "give --max-drop in points"
            )
