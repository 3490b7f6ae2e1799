"""Write down what NVIDIA's Python bindings say they take: ``record_signatures.py MODULE OUT``.

The bindings of full TensorRT are on PyPI without the library they wrap. They document every call
(pybind11), and to be imported they only need the library's nine entry points to exist:

    pip download --no-deps --only-binary :all: tensorrt-cu12-bindings==10.3.0     # and unzip it
    gcc -shared -fPIC -Wl,-soname,libnvinfer.so.10 -o libnvinfer.so.10 stub.c    # see below
    gcc -shared -fPIC -Wl,-soname,libnvonnxparser.so.10 -o libnvonnxparser.so.10 -x c /dev/null
    gcc -shared -fPIC -Wl,-soname,libnvinfer_plugin.so.10 -o libnvinfer_plugin.so.10 -x c /dev/null
    LD_LIBRARY_PATH=. PYTHONPATH=. python record_signatures.py tensorrt_bindings out.json

stub.c has functions that give 0: createInferBuilder_INTERNAL, createInferRefitter_INTERNAL,
createInferRuntime_INTERNAL, createNvOnnxParser_INTERNAL, createNvOnnxParserRefitter_INTERNAL,
getBuilderPluginRegistry, getPluginRegistry, getNvOnnxParserVersion and initLibNvInferPlugins.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

CLASSES = [
    "Builder",
    "INetworkDefinition",
    "IBuilderConfig",
    "OnnxParser",
    "ParserError",
    "IOptimizationProfile",
    "IPluginRegistry",
    "ILogger",
    "IProgressMonitor",
    "ILayer",
    "ITopKLayer",
    "IGridSampleLayer",
    "ITensor",
    "Runtime",
    "ICudaEngine",
    "IExecutionContext",
    "EngineInspector",
    "IHostMemory",
    "ITimingCache",
    "IPluginCreatorInterface",
    "IPluginCreatorV3One",
]
ENUMS = [
    "NetworkDefinitionCreationFlag",
    "BuilderFlag",
    "MemoryPoolType",
    "ProfilingVerbosity",
    "LayerType",
    "LayerInformationFormat",
    "InterpolationMode",
    "DataType",
    "TensorIOMode",
    "ComputeCapability",
]
FUNCTIONS = ("get_plugin_registry", "init_libnvinfer_plugins")


def signatures(name: str, doc: str | None) -> list[str]:
    """``["set_flag(self: IBuilderConfig, flag: BuilderFlag) -> None"]`` from a docstring."""
    lines = re.findall(rf"^\s*(?:\d+\. )?({name}\(.*)$", doc or "", re.MULTILINE)
    return [re.sub(r"\w+\.(?:tensorrt\w*)\.", "", line) for line in lines if "*args" not in line]


def members(kind: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in dir(kind):
        if name.startswith("_") and name != "__init__":
            continue
        value = getattr(kind, name)
        if isinstance(value, property):
            found[name] = {"writable": value.fset is not None}
        elif lines := signatures(name, value.__doc__):
            found[name] = lines
    return found


def main() -> None:
    module, out = sys.argv[1:]
    trt = importlib.import_module(module)
    record = {
        "version": trt.__version__,
        "classes": {n: members(getattr(trt, n)) for n in CLASSES if hasattr(trt, n)},
        "bases": {
            n: [b.__name__ for b in getattr(trt, n).__mro__[1:] if b.__name__ in CLASSES]
            for n in CLASSES
            if hasattr(trt, n)
        },
        "enums": {
            n: {k: int(v) for k, v in getattr(trt, n).__members__.items()}
            for n in ENUMS
            if hasattr(trt, n)
        },
        "functions": {
            n: signatures(n, getattr(trt, n).__doc__) for n in FUNCTIONS if hasattr(trt, n)
        },
    }
    Path(out).write_text(json.dumps(record, indent=0, sort_keys=True) + "\n")
    os._exit(0)


if __name__ == "__main__":
    main()
