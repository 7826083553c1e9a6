"""How rules read the arguments of operations."""

from __future__ import annotations

from typing import Any

from bootstrapnas_ext.graph.ir import Op, Ref
from bootstrapnas_ext.graph.propagate import NoRuleError


def tensor(op: Op, position: int, *names: str) -> Ref:
    """
    Returns an argument that must be a tensor.

    :param op: The operation.
    :param position: Position of the argument in the function's signature.
    :param names: Its name there; several, if functions of one rule name it in different ways.
    :raises NoRuleError: If it is none.
    """
    argument = op.argument(position, next((name for name in names if name in op.kwargs), names[0]))
    if not isinstance(argument, Ref):
        msg = f"{op.name} does not take a tensor as its {names[0]!r}"
        raise NoRuleError(msg)
    return argument


def data(op: Op) -> Ref:
    """
    Returns the first argument, the tensor that the operation is about.

    :param op: The operation.
    :raises NoRuleError: If it is no tensor.
    """
    return tensor(op, 0, "input", "self", "A", "x")


def data_and_others(op: Op) -> tuple[int, list[int]]:
    """
    Returns the index of the tensor that the operation is about, and those of all its other tensors, in order.

    :param op: The operation.
    :raises NoRuleError: If the first argument is no tensor.
    """
    first = data(op).value
    others = list(op.tensors)
    others.remove(first)
    return first, others


def dims(given: Any, rank: int) -> list[int]:
    """
    Returns numbers of dimensions as a list, counted from 0.

    :param given: A number, several, or ``None`` for all.
    :param rank: How many dimensions there are.
    """
    if given is None:
        return list(range(rank))
    numbers = given if isinstance(given, (list, tuple)) else [given]
    return [number % rank for number in numbers]


def dim(op: Op, position: int, rank: int, default: int | None = None) -> int:
    """
    Returns the one dimension that an operation is about, counted from 0.

    :param op: The operation.
    :param position: Position of ``dim`` in the function's signature.
    :param rank: How many dimensions there are.
    :param default: Where the function has one.
    :raises NoRuleError: If it is not one number.
    """
    found = op.argument(position, "dim", op.kwargs.get("axis", default))
    if not isinstance(found, int):
        msg = f"{op.name} is not about one dimension"
        raise NoRuleError(msg)
    return found % rank


def letters(equation: str) -> tuple[list[str], str]:
    """
    Returns the letters of an equation of ``einsum``: those of each tensor, and those of the result.

    Without an arrow, the result has the letters that occur once, in the order of the alphabet.

    :param equation: Such as ``"bij,bjk->bik"`` or ``"...c,cd"``.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        once = sorted(letter for letter in set(left) if letter.isalpha() and left.count(letter) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    return left.split(","), right


def spread(op: Op, position: int) -> list[Any]:
    """
    Returns integers that may be passed one by one or as one tuple.

    :param op: The operation.
    :param position: Position of the first.
    """
    rest = op.args[position:]
    if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
        return list(rest[0])
    return list(rest)
