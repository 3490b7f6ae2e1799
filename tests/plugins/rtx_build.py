"""Build an ONNX file with TensorRT-RTX and the plugin library, for a GPU that need not be here.

    python rtx_build.py LIBRARY ONNX SM86

Prints one JSON object: the layers of the parsed network by type, the parser's errors, the size of
the engine. Run it in a process of its own: a builder that aborts takes the process along.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def preload(folder: Path) -> list[ctypes.CDLL]:
    """Load the wheel's libraries under the names by which they look for each other.

    The parser opens ``libtensorrt_rtx.so``, and the wheel has ``libtensorrt_rtx.so.1`` only; where
    it is not found, the first plugin node ends the process.
    """
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None or spec.origin is None:
        raise SystemExit("tensorrt_rtx_libs is not installed")
    for path in Path(spec.origin).parent.glob("*.so*"):
        for name in {path.name, path.name.split(".so")[0] + ".so"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(path)
    names = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
    return [ctypes.CDLL(str(folder / name)) for name in names]


def build(trt: Any, library: str, model: str, target: str) -> dict[str, object]:
    """Parse and build; an engine of 0 bytes where either failed."""
    logger = trt.Logger(trt.Logger.ERROR)
    registry = trt.get_plugin_registry()
    registry.load_library(library)
    creators = sorted(c.name for c in registry.all_creators if c.plugin_namespace == "pointrend")
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(model)
    layers = [network.get_layer(i).type.name for i in range(network.num_layers)]
    engine = None
    if parsed:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
        engine = builder.build_serialized_network(network, config)
    return {
        "creators": creators,
        "layers": dict(collections.Counter(layers)),
        "errors": [parser.get_error(i).desc() for i in range(parser.num_errors)],
        "engine_bytes": engine.nbytes if engine is not None else 0,
        "version": trt.__version__,
    }


def main() -> None:
    library, model, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        keep = preload(Path(folder))
        trt = importlib.import_module("tensorrt_rtx")
        print(json.dumps(build(trt, library, model, target)), flush=True)
        del keep
    os._exit(0)  # without a GPU its teardown may not end


if __name__ == "__main__":
    main()
