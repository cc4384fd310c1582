"""Formulas over graders' scores: arithmetic and a few functions, walked as a tree and never executed as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

_OPERATORS: Final[dict[type, Callable[..., float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Final[dict[str, Callable[..., float]]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
MAX_NODES: Final = 200


def check_formula(text: str, names: Collection[str]) -> None:
    """Check that a formula is arithmetic over these names.

    Raises:
        ValueError: saying what it holds instead.
    """
    tree = _parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in names and node.id not in _FUNCTIONS:
            raise ValueError(f"calculate_output uses {node.id!r}, which is no grader's name")
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"calculate_output holds {type(node).__name__}; only arithmetic is allowed")


_ALLOWED: Final = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.USub,
    ast.UAdd,
)


def _parse(text: str) -> ast.Expression:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError("calculate_output is not a formula") from error
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ValueError("calculate_output is too long")
    return tree


def calculate(text: str, scores: Mapping[str, float]) -> float:
    """The value of a formula for these scores.

    Raises:
        ValueError: for a formula that is none, and for a value that is not finite.
    """
    check_formula(text, scores.keys())
    try:
        value = float(_value(_parse(text).body, scores))
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"calculate_output: {error}") from error
    if not math.isfinite(value):
        raise ValueError("calculate_output is not finite")
    return value


def _value(node: Any, scores: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in scores:
        return scores[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, scores), _value(node.right, scores))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, scores))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_value(each, scores) for each in node.args))
    raise ValueError("calculate_output is not arithmetic")
