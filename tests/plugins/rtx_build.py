"""Build an ONNX file with TensorRT-RTX and the plugin library, for a GPU that need not be here.

    python rtx_build.py LIBRARY ONNX SM86

Prints one JSON object: the layers of the parsed network by type, the parser's errors, the size of
the engine. Run it in a process of its own: a builder that aborts takes the process along.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


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
    sys.path.insert(
        0, str(Path(__file__).resolve().parent.parent.parent)
    )  # also where not installed
    flavour = importlib.import_module("pointrend_deploy.engine.flavour")
    with tempfile.TemporaryDirectory() as folder:
        keep = flavour.prepare_import("tensorrt_rtx", Path(folder))
        trt = importlib.import_module("tensorrt_rtx")
        print(json.dumps(build(trt, library, model, target)), flush=True)
        del keep
    os._exit(0)  # without a GPU its teardown may not end


if __name__ == "__main__":
    main()
