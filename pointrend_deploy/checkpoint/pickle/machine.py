"""Read a pickle without running it: a small pickle machine that can only build data.

Python's own unpickler imports and calls whatever a file names. This one builds numbers, strings,
lists, tuples and dicts, and calls only the functions it was made with, looked up by the full name
written in the file. A hostile file costs memory in proportion to its size at most: large byte
strings are views of the input, lengths are checked before anything is read, the memo is a
dict (an index of 2**31 costs nothing), and the number of instructions and what calls may copy are
bounded.

Source: the instructions are those documented in CPython's ``Lib/pickletools.py`` (protocols 0..5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointrend_deploy.checkpoint.pickle.instructions import (
    LENGTH_BYTES,
    MAX_LINE_BYTES,
    TEXT,
    DamagedError,
    Instructions,
    RefusedError,
)

MAX_INSTRUCTIONS = 1_000_000
"""More than any checkpoint needs (a ResNet-101 with its optimizer takes about 100,000)."""

_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bytes, type(None))

Callables = Mapping[str, "Callable[..., object] | None"]


@dataclass(frozen=True)
class Global:
    """An admitted name; ``call`` is None where the name only labels something (a storage type)."""

    name: str
    call: Callable[..., object] | None


class Buildable(ABC):
    """Base of the objects whose state a BUILD instruction may set through ``__setstate__``."""

    @abstractmethod
    def __setstate__(self, state: object) -> None: ...


class PickleMachine:
    """Builds the object a pickle describes.

    Args:
        data: the bytes; large byte strings in the result are read-only views of it.
        admitted: full names such as ``numpy.dtype`` to what is called in their place. A name
            that is not in it is refused.
        persistent: gives the object for a persistent id (torch's storages); refused if None.
        start: position in ``data`` of the first instruction.

    After :meth:`load`, ``position`` is just behind the last instruction.
    """

    def __init__(
        self,
        data: memoryview,
        admitted: Callables,
        persistent: Callable[[object], object] | None = None,
        start: int = 0,
    ) -> None:
        self._instructions = Instructions(data, start)
        self._admitted = admitted
        self._persistent = persistent
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._bytes_left = 4 * len(data) + MAX_LINE_BYTES
        self._items_left = MAX_INSTRUCTIONS

    @property
    def position(self) -> int:
        """Where the next instruction would be read."""
        return self._instructions.position

    def load(self) -> object:
        """Run to the STOP instruction and return the object.

        Raises:
            RefusedError: a name, an instruction or a construction that is not admitted.
            DamagedError: the pickle ends early or does not hold together.
        """
        try:
            for _ in range(MAX_INSTRUCTIONS):
                name, argument = self._instructions.next()
                if name == "STOP":
                    return self._stack.pop()
                self._run(name, argument)
        except RefusedError:
            raise
        except Exception as error:  # whatever broken bytes can provoke means just that
            raise DamagedError(
                f"it is no whole pickle ({type(error).__name__}: {error})"
            ) from error
        raise RefusedError(f"more than {MAX_INSTRUCTIONS} pickle instructions")

    def _run(self, name: str, argument: object) -> None:
        stack = self._stack
        if name in LENGTH_BYTES or name in _NUMBERS or name in TEXT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            self._marks.append(stack)
            self._stack = []
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise DamagedError("a tuple lacks its items")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self._since_mark()
            self._stack.append(tuple(items))
        elif name == "LIST":
            items = self._since_mark()
            self._stack.append(items)
        elif name == "DICT":
            items = self._since_mark()
            self._stack.append({})
            self._set_items(items)
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            target = self._stack[-1]
            if not isinstance(target, list):
                raise DamagedError("items appended to something that is no list")
            target.extend(items)
        elif name == "SETITEM":
            value = stack.pop()
            self._set_items([stack.pop(), value])
        elif name == "SETITEMS":
            self._set_items(self._since_mark())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[_index(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[_index(argument)])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self._since_mark()
        elif name == "POP_MARK":
            self._since_mark()
        elif name in ("PROTO", "FRAME"):
            pass  # every instruction is checked by itself, whatever these announce
        else:
            self._run_calling(name, argument)

    def _run_calling(self, name: str, argument: object) -> None:
        stack = self._stack
        if name in ("GLOBAL", "INST"):  # one line each for the module and the name
            stack.append(self._find(*str(argument).split(" ", 1)))
            if name == "INST":
                raise RefusedError(f"an old-style instance of {argument}")
        elif name == "STACK_GLOBAL":
            attribute = stack.pop()
            stack.append(self._find(str(stack.pop()), str(attribute)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            function = stack.pop()
            if not isinstance(function, Global) or not isinstance(arguments, tuple):
                raise RefusedError(f"a call of {type(function).__name__}")
            if function.call is None:
                raise RefusedError(f"a call of {function.name}")
            self._charge(arguments)
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            target = stack[-1]
            if isinstance(target, Buildable):
                self._charge(state)
                target.__setstate__(state)
            elif not isinstance(target, dict):  # attributes of an OrderedDict are not needed
                raise RefusedError(f"the state of {type(target).__name__}")
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(stack.pop()))
        else:
            raise RefusedError(f"the pickle instruction {name}")

    def _charge(self, arguments: object) -> None:
        """Count what a call may copy, so that one large object cannot be copied many times."""
        for argument in arguments if isinstance(arguments, tuple) else ():
            if isinstance(argument, (str, bytes, memoryview)):
                self._bytes_left -= len(argument)
            elif isinstance(argument, (tuple, list, dict)):
                self._items_left -= len(argument)
        if self._bytes_left < 0 or self._items_left < 0:
            raise RefusedError("the same data unpacked again and again")

    def _find(self, module: str, attribute: str) -> Global:
        name = f"{module}.{attribute}"
        if name not in self._admitted:
            raise RefusedError(f"`{name}`")
        return Global(name, self._admitted[name])

    def _since_mark(self) -> list[object]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _set_items(self, items: list[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise DamagedError("items set in something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value


def plain_key(key: object) -> object:
    """Return ``key`` if it is a string, number or None: hashing deep tuples exhausts the stack."""
    if not isinstance(key, _KEYS):
        raise RefusedError(f"a dict key of type {type(key).__name__}")
    return key


def _index(argument: object) -> int:
    if not isinstance(argument, int):
        raise DamagedError("a memo index is no number")
    return argument
