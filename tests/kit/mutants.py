"""Small faults put into a solution on purpose: whoever changes a comparison, a number, a statement or a condition.

A mutant that no test and no check notices is either a gap in them or no fault at all; the second kind needs a reason,
in `tests/survivors/19.2.3.toml`, under the words that this module gives it.
"""

from __future__ import annotations

import ast
import copy
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SURVIVORS = Path(__file__).resolve().parents[1] / "survivors"
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Return)
LEFT_ALONE = ("main",)  # the demo is read, not relied on


@dataclass(frozen=True)
class Mutant:
    """A changed source, and the change in words: the statement before and after."""

    name: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Return every single mutation of a module's functions and classes; the same change in two places counts twice."""
    tree = ast.parse(source)
    seen: dict[str, int] = {}
    found = []
    for place in _places(tree):
        for number in range(_variants(place)):
            changed = copy.deepcopy(tree)
            twin = _twin(tree, changed, place)
            before = _statement(changed, twin)
            change(changed, twin, number)
            after = _statement(changed, twin)
            name = f"{before}  ->  {after}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f"  ({seen[name]})"
            found.append(Mutant(name, ast.unparse(ast.fix_missing_locations(changed)) + "\n"))
    return found


def reasons(exercise: str) -> dict[str, str]:
    """Return why some mutants may live, by the mutant's name."""
    file = SURVIVORS / f"{exercise}.toml"
    if not file.exists():
        return {}
    entries = tomllib.loads(file.read_text(encoding="utf-8"))["survivor"]
    return {entry["mutant"]: entry["reason"] for entry in entries}


def change(tree: ast.Module, node: ast.AST, number: int) -> None:
    """Apply the mutation to the node in place."""
    if isinstance(node, ast.Compare):
        node.ops[number] = SWAPPED[type(node.ops[number])]()  # type: ignore[call-overload]
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        node.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        _replace(tree, node, ast.Pass())


def _places(tree: ast.Module) -> Iterator[ast.AST]:
    for top in tree.body:
        if isinstance(top, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and top.name not in LEFT_ALONE:
            yield from _inside(top)
        elif isinstance(top, ast.Assign) and isinstance(top.value, ast.Constant):
            yield from _inside(top.value)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    if _variants(node):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inside(child)


def _variants(node: ast.AST) -> int:
    if isinstance(node, ast.Compare):
        return sum(type(op) in SWAPPED for op in node.ops)
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        return int(type(node.op) in SWAPPED)
    if isinstance(node, ast.Constant):
        return int(isinstance(node.value, (bool, int, float)))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return 0  # a docstring
    return int(isinstance(node, (ast.If, ast.While, ast.IfExp, *DELETED)))


def _twin(tree: ast.AST, other: ast.AST, node: ast.AST) -> ast.AST:
    return next(b for a, b in zip(ast.walk(tree), ast.walk(other), strict=True) if a is node)


def _statement(tree: ast.Module, node: ast.AST) -> str:
    """Return the first line of the smallest statement around the node."""
    around = [s for s in ast.walk(tree) if isinstance(s, ast.stmt) and any(n is node for n in ast.walk(s))]
    return ast.unparse(around[-1]).splitlines()[0] if around else "(nothing)"


def _replace(tree: ast.AST, old: ast.AST, new: ast.stmt) -> None:
    for parent in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(parent, name, None)
            if isinstance(block, list) and old in block:
                block[block.index(old)] = new
