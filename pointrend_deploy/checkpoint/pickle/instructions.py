"""The instructions of a pickle, read one at a time with every length checked first.

Source: CPython's ``Lib/pickletools.py`` documents the instructions (protocols 0..5).
"""

from __future__ import annotations

import codecs
import pickletools
from typing import Any, cast

MAX_LINE_BYTES = 65_536
"""Longest name or number of protocol 0; bounds the cost of parsing one number."""

_VIEW_FROM_BYTES = 256

LENGTH_BYTES = {
    "SHORT_BINBYTES": 1,
    "BINBYTES": 4,
    "BINBYTES8": 8,
    "BYTEARRAY8": 8,
    "SHORT_BINSTRING": 1,
    "BINSTRING": 4,
    "SHORT_BINUNICODE": 1,
    "BINUNICODE": 4,
    "BINUNICODE8": 8,
}
"""Instructions that carry a string: bytes of their length field."""

TEXT = ("STRING", "UNICODE")
"""Instructions that carry a string as a line of text."""

_KNOWN = {instruction.code: instruction for instruction in pickletools.opcodes}


class RefusedError(Exception):
    """The file contains something no checkpoint needs.

    Attributes:
        reason: what that is; for a global, with its full name.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DamagedError(Exception):
    """The bytes are not a whole file of their format."""


class Instructions:
    """Reads instructions from ``data``, from ``position`` on.

    Byte strings of 256 bytes or more are views of ``data``. Python 2's strings become latin-1 text.
    """

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.position = position
        self._data = data

    def read(self, count: int) -> bytes:
        """``count`` bytes, fewer at the end (the name is what pickletools calls)."""
        piece = bytes(self._data[self.position : self.position + count])
        self.position += len(piece)
        return piece

    def readline(self) -> bytes:
        """Bytes up to and with the next newline, at most ``MAX_LINE_BYTES``."""
        piece = bytes(self._data[self.position : self.position + MAX_LINE_BYTES])
        piece = piece[: piece.find(b"\n") + 1]
        if not piece:
            raise DamagedError("a text line has no end")
        self.position += len(piece)
        return piece

    def next(self) -> tuple[str, object]:
        """The next instruction's name and argument (None where it has none).

        Raises:
            RefusedError: an integer of more than 255 bytes.
            DamagedError: the data ends inside the instruction, or it is none. Other exceptions
                mean the same: pickletools raises several.
        """
        code = self.read(1)
        if not code:
            raise DamagedError("it ends early")
        known = _KNOWN.get(code.decode("latin-1"))
        if known is None:
            raise DamagedError(f"byte {code[0]:#04x} at {self.position - 1} is no pickle")
        if known.name in LENGTH_BYTES:
            return known.name, self._counted(known.name)
        if known.name in TEXT:
            return known.name, self._text(known.name)
        if known.name == "LONG4":
            raise RefusedError("an integer of more than 255 bytes")
        return known.name, known.arg.reader(cast(Any, self)) if known.arg else None

    def _counted(self, name: str) -> object:
        width = LENGTH_BYTES[name]
        field = self.read(width)
        length = int.from_bytes(field, "little")
        if len(field) < width or length > len(self._data) - self.position:
            raise DamagedError("it ends early")
        piece = self._data[self.position : self.position + length]
        self.position += length
        if name.endswith("UNICODE") or name.endswith("UNICODE8"):
            return str(piece, "utf-8", "surrogatepass")
        if name.endswith("STRING"):  # Python 2's str
            return str(piece, "latin-1")
        return piece if length >= _VIEW_FROM_BYTES else bytes(piece)

    def _text(self, name: str) -> str:
        """A line of protocol 0, of any length: Python 2 writes whole arrays as one."""
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = bytes(self._data[self.position : self.position + MAX_LINE_BYTES])
            piece = piece[: piece.find(b"\n") + 1] or piece
            if not piece:
                raise DamagedError("it ends early")
            line += piece
            self.position += len(piece)
        if name == "UNICODE":
            return str(line[:-1], "raw-unicode-escape")
        if len(line) < 3 or line[0] not in b"'\"" or line[-2] != line[0]:
            raise DamagedError("a string without quotes")
        return codecs.escape_decode(bytes(line[1:-2]))[0].decode("latin-1")
