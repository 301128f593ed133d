"""Reads the instructions of a pickle without running it.

A pickle is a program for a small stack machine, and some of its instructions import and call
arbitrary names. This machine implements only the instructions that build plain values. It passes
names and calls to functions of the caller, which accept a few; an object of any other name becomes
`Opaque` and stays empty. Python's unpickler is not used: `pickletools` only parses the bytes.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from kdjax.errors import UserError

# A checkpoint of ResNet-101 with its optimizer needs about 50,000.
_MAX_INSTRUCTIONS = 2_000_000

_PUSH_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CORRUPT_PICKLE_ERRORS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
)


class Global(NamedTuple):
    """A name that an instruction would import; it is not imported."""

    module: str
    name: str


class Opaque(NamedTuple):
    """The name of an object, class or function, which is neither imported nor created."""

    name: str


class Handlers(NamedTuple):
    """Functions that return the value of a name, a call or a reference, or raise UserError."""

    name: Callable[[Global], Any]
    call: Callable[[Any, tuple[Any, ...]], Any]
    reference: Callable[[Any], Any]  # of persistent ids


class _Machine(NamedTuple):
    stack: list[Any]
    marks: list[int]  # heights of the stack
    memo: dict[int, Any]


def read_pickle(file: BinaryIO, handlers: Handlers) -> Any:
    """Follow the instructions to the first STOP; the file position is then right after it.

    Args:
      file: open for reading bytes.
      handlers: called for everything that is not a plain value.

    Returns:
      None, a number, a string, bytes, a tuple, list or dict of such, or a value of `handlers`.

    Raises:
      UserError: the instructions are damaged, too many, or refused.
    """
    machine = _Machine([], [], {})
    try:
        for count, (code, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MAX_INSTRUCTIONS:
                raise UserError(f"it has more than {_MAX_INSTRUCTIONS} instructions")
            if code.name == "STOP":
                return machine.stack.pop()
            _follow(machine, code.name, argument, handlers)
    except UserError:
        raise
    except _CORRUPT_PICKLE_ERRORS as error:
        raise UserError(f"its description is damaged: {error}") from error
    raise UserError("its description is damaged: it has no end")


def _follow(machine: _Machine, code: str, argument: Any, handlers: Handlers) -> None:
    stack, marks, memo = machine
    if code in _PUSH_ARGUMENT:
        stack.append(argument)
    elif code in _PUSH_NEW:
        stack.append(_PUSH_NEW[code]())
    elif code == "MARK":
        marks.append(len(stack))
    elif code in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[argument] = stack[-1]
    elif code == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif code in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[argument])
    elif code == "GLOBAL":
        stack.append(handlers.name(Global(*argument.split(" ", 1))))
    elif code == "STACK_GLOBAL":
        name, module = stack.pop(), stack.pop()
        stack.append(handlers.name(Global(str(module), str(name))))
    elif code in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
        if code == "NEWOBJ_EX":
            stack.pop()  # keyword arguments, which no tensor has
        arguments, function = stack.pop(), stack.pop()
        if not isinstance(arguments, tuple):
            raise UserError("its description is damaged: a call without arguments")
        stack.append(handlers.call(function, arguments))
    elif code == "BINPERSID":
        stack.append(handlers.reference(stack.pop()))
    elif code == "BUILD":
        stack.pop()
        # The state of an ordered dict, the versions of its layers, is not needed.
        if not isinstance(stack[-1], dict | Opaque):
            raise UserError("it sets the state of an object, which no state dict needs: refused")
    elif code not in ("PROTO", "FRAME"):
        _collect(machine, code, argument)


def _collect(machine: _Machine, code: str, argument: Any) -> None:
    """Combine the top of the stack to tuples, lists and dicts."""
    stack = machine.stack
    if code in _TUPLES:
        stack.append(tuple(_take(stack, len(stack) - _TUPLES[code])))
    elif code == "TUPLE":
        stack.append(tuple(_take(stack, machine.marks.pop())))
    elif code == "LIST":
        stack.append(_take(stack, machine.marks.pop()))
    elif code == "DICT":
        items = _take(stack, machine.marks.pop())
        stack.append({})
        _set(stack[-1], items)
    elif code in ("APPEND", "APPENDS"):
        items = _take(stack, len(stack) - 1 if code == "APPEND" else machine.marks.pop())
        if not isinstance(stack[-1], list | Opaque):
            raise UserError(
                "its description is damaged: it appends to something that is not a list"
            )
        if isinstance(stack[-1], list):
            stack[-1].extend(items)
    elif code in ("SETITEM", "SETITEMS"):
        items = _take(stack, len(stack) - 2 if code == "SETITEM" else machine.marks.pop())
        _set(stack[-1], items)
    elif code == "POP":
        stack.pop()
    elif code == "POP_MARK":
        _take(stack, machine.marks.pop())
    else:
        detail = f" ({argument})" if isinstance(argument, str) else ""
        raise UserError(
            f"it uses the instruction {code}{detail}, which no state dict needs: refused"
        )


def _take(stack: list[Any], start: int) -> list[Any]:
    if not 0 <= start <= len(stack):
        raise UserError("its description is damaged: the stack is too short")
    items = stack[start:]
    del stack[start:]
    return items


def _set(target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise UserError("its description is damaged: it sets items of something that is not a dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a deeply nested tuple would overflow the stack of the process.
        if not isinstance(key, str | int | float | Opaque | None):
            raise UserError(f"it has a key of type {type(key).__name__}, not a name: refused")
        target[key] = value
