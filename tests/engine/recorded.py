"""A TensorRT that is its signatures only: every call is checked against NVIDIA's own bindings.

``signatures/`` holds what record_signatures.py read from the bindings of full TensorRT 10.3.0,
10.16.1.11 and 11.4.0.106 (PyPI tensorrt-cu12-bindings) and of TensorRT-RTX 1.7.1. A name they do
not have, a wrong number or kind of arguments, a property that cannot be set: each is an error too.
What a call answers is given by the test.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIGNATURES = Path(__file__).parent / "signatures"
FULL = ("tensorrt-10.3.0", "tensorrt-10.16.1.11", "tensorrt-11.4.0.106")
Answers = Mapping[str, Any]


class Call(tuple[str, dict[str, Any]]):
    """Name and arguments of a call that fitted."""


def recorded(name: str, answers: Answers) -> SimpleNamespace:
    """A module of the recorded classes; its ``calls`` lists what was called, in order.

    Args:
        name: of a file in signatures/.
        answers: by ``Class.method``, ``Class.property`` or function: a value, or a function of the
            object and the arguments. Without one a call answers an object of the recorded type.
    """
    record = json.loads((SIGNATURES / f"{name}.json").read_text())
    module = SimpleNamespace(__version__=record["version"], __name__=name.split("-")[0], calls=[])
    for enumeration, values in record["enums"].items():
        setattr(module, enumeration, enum.IntEnum(enumeration, values))
    order = sorted(record["classes"], key=lambda n: len(record["bases"][n]))
    for kind in order:
        bases = tuple(getattr(module, b) for b in record["bases"][kind][:1]) or (object,)
        if kind == "IHostMemory":
            bases = (bytes,)
        body: dict[str, Any] = {}
        inherited = record["classes"].get(bases[0].__name__, {})
        for member, what in record["classes"][kind].items():
            if member in inherited:
                continue
            if member == "__init__":
                if kind != "IHostMemory":
                    body[member] = _initialiser(module, kind, what)
            elif isinstance(what, dict):
                body[member] = _Property(kind, member, what["writable"], answers, module)
            else:
                body[member] = _method(module, kind, member, what, answers)
        setattr(module, kind, type(kind, bases, body))
    for function, lines in record["functions"].items():
        setattr(module, function, _function(module, function, lines, answers))
    return module


def bound(module: Any, lines: list[str], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    """The recorded type of the answer and the arguments by name, for the signature that fits.

    Raises:
        TypeError: none does.
    """
    for line in lines:
        match = re.match(r"\w+\((.*)\) -> (.*)$", line)
        assert match is not None, line
        names, left, fits = [], list(args), dict(kw)
        arguments: dict[str, Any] = {}
        for part in _split(match[1]):
            name, _, kind = part.partition(": ")
            kind, _, default = kind.partition(" = ")
            names.append(name)
            if name == "self":
                continue
            if left:
                value = left.pop(0)
            elif name in fits:
                value = fits.pop(name)
            elif default:
                continue
            else:
                break
            if not _is(module, value, kind):
                break
            arguments[name] = value
        else:
            if not left and not fits:
                return match[2], arguments
    raise TypeError(f"{lines} does not take {args} {kw}")


def _split(parameters: str) -> list[str]:
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _is(module: Any, value: Any, kind: str) -> bool:
    kind = kind.strip()
    if isinstance(getattr(module, kind, None), type):
        return isinstance(value, getattr(module, kind))
    if kind in ("int", "typing.SupportsInt", "typing.SupportsInt | typing.SupportsIndex"):
        return isinstance(value, int) and not isinstance(value, (bool, enum.Enum))
    plain: dict[str, Any] = {
        "str": str,
        "bool": bool,
        "buffer": (bytes, bytearray, memoryview),
        "collections.abc.Buffer": (bytes, bytearray, memoryview),
        "typing_extensions.Buffer": (bytes, bytearray, memoryview),
        "Dims": (tuple, list),
        "tuple": tuple,
        "list": list,
        "capsule": module.ILogger,
        "typing_extensions.CapsuleType": module.ILogger,
        "object": object,
    }
    if kind not in plain:
        raise TypeError(f"the double does not know the type {kind!r}")
    return isinstance(value, plain[kind])


def _answer(module: Any, key: str, owner: Any, kind: str, answers: Answers, arguments: Any) -> Any:
    if key in answers:
        given = answers[key]
        return given(owner, **arguments) if callable(given) else given
    kind = {"nvonnxparser::IParserError": "ParserError"}.get(kind, kind)
    known = getattr(module, kind, None)
    if isinstance(known, type):
        return known.__new__(known)
    return {"bool": True, "int": 0, "str": ""}.get(kind)


def _method(module: Any, kind: str, name: str, lines: list[str], answers: Answers) -> Any:
    def call(self: Any, *args: Any, **kw: Any) -> Any:
        gives, arguments = bound(module, lines, args, kw)
        module.calls.append(Call((f"{kind}.{name}", arguments)))
        return _answer(module, f"{kind}.{name}", self, gives, answers, arguments)

    return call


def _initialiser(module: Any, kind: str, lines: list[str]) -> Any:
    def call(self: Any, *args: Any, **kw: Any) -> None:
        bound(module, lines, args, kw)
        module.calls.append(Call((kind, {})))

    return call


def _function(module: Any, name: str, lines: list[str], answers: Answers) -> Callable[..., Any]:
    def call(*args: Any, **kw: Any) -> Any:
        gives, arguments = bound(module, lines, args, kw)
        if name == "get_plugin_registry":
            gives = "IPluginRegistry"
        module.calls.append(Call((name, arguments)))
        return _answer(module, name, None, gives, answers, arguments)

    return call


class _Property:
    def __init__(self, kind: str, name: str, writable: bool, answers: Answers, module: Any) -> None:
        self.key, self.name, self.writable = f"{kind}.{name}", name, writable
        self.answers, self.module = answers, module

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        if owner is None:
            return self
        if self.name in vars(owner):
            return vars(owner)[self.name]
        if self.key not in self.answers:
            raise KeyError(f"the test gives no {self.key}")
        given = self.answers[self.key]
        return given(owner) if callable(given) else given

    def __set__(self, owner: Any, value: Any) -> None:
        if not self.writable:
            raise AttributeError(f"{self.key} cannot be set")
        self.module.calls.append(Call((f"{self.key} =", {"value": value})))
        vars(owner)[self.name] = value
