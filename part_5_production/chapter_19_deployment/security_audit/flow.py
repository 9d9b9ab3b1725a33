"""Where a value goes: expressions of a syntax tree that carry it on."""

import ast
import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

from security_audit.findings import words

PASSING = words("passing")
SHOWN = 8  # characters of a secret that tell it apart and give nothing away
TELLS_LITTLE = ("status_code", "code", "errno", "__class__", "__name__", "id")
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def last(node: ast.AST | None) -> str:
    """Return the last name of a dotted expression, a call's function included: `logging.getLogger(x).info` -> info."""
    if isinstance(node, ast.Call):
        return last(node.func)
    if isinstance(node, ast.Subscript):
        return last(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def constant(node: ast.AST | None, kind: type = str) -> Any:
    """Return a constant of this kind, "a" + "b" and f"a" included, else None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, kind):
        return node.value
    if kind is str and isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return node.value.decode("ascii", "replace")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = constant(node.left, kind), constant(node.right, kind)
        return left + right if left is not None and right is not None else None
    if isinstance(node, ast.JoinedStr) and kind is str and all(isinstance(v, ast.Constant) for v in node.values):
        return "".join(str(v.value) for v in node.values if isinstance(v, ast.Constant))
    if isinstance(node, ast.Call) and kind is str and last(node) == "join" and isinstance(node.func, ast.Attribute):
        parts = (
            [constant(e) for e in node.args[0].elts]
            if node.args and isinstance(node.args[0], (ast.List, ast.Tuple))
            else [None]
        )
        glue = constant(node.func.value)
        return None if glue is None or None in parts else glue.join(part or "" for part in parts)
    if isinstance(node, ast.Call) and last(node) == "encode" and isinstance(node.func, ast.Attribute):
        return constant(node.func.value, kind)
    if isinstance(node, ast.Call) and last(node) in ("SecretStr", "Field", "str"):
        return constant(node.args[0] if node.args else keywords(node).get("default"), kind)
    return None


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Return a call's keyword arguments."""
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes right below: as ast.iter_child_nodes, in half the time and without Load and Store."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST) and name != "ctx":
            found.append(value)
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """Return a node and all that is below it."""
    found = [node]
    for each in found:  # which grows meanwhile
        found += children(each)
    return found


@functools.lru_cache(maxsize=1000)  # every rule asks for the same scopes, file by file
def own_nodes(scope: ast.AST) -> tuple[ast.AST, ...]:
    """Return the nodes of a scope in order, without those of the functions in it."""
    found: list[ast.AST] = []
    left = children(scope)[::-1]
    while left:
        found.append(node := left.pop())
        if not isinstance(node, Function):
            left += children(node)[::-1]
    return tuple(found)


def targets_of(node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> list[ast.expr]:
    """Return what is assigned to."""
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def assignments(node: ast.AST) -> list[tuple[list[ast.expr], ast.expr]]:
    """Return what a node assigns to what: an assignment, or a loop's variable to what it loops over."""
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
        return [([t for t in targets_of(node) if not isinstance(t, ast.Attribute)], node.value)]
    return [([node.target], node.iter)] if isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)) else []


class Flow:
    """Follows values through one scope: which expressions carry what `source` says is hot."""

    def __init__(
        self,
        scope: ast.AST,
        source: Callable[[ast.AST], bool],
        names: Iterable[str] = (),
        *,
        built: bool = False,
        cut: bool = False,
        carriers: Iterable[str] = (),
        parts: Collection[str] = (),
    ) -> None:
        """`names` are hot at the start; `parts`, if given, are the only attributes that carry it: body.message."""
        self.source, self.names, self.built, self.cut, self.parts = source, set(names), built, cut, parts
        self.passing = PASSING.union(carriers)
        self.cold: set[tuple[str, str]] = set()  # config["model"], beside the secret that config holds
        steps = [step for node in own_nodes(scope) for step in assignments(node)]
        for targets, value in [*steps, *steps]:  # twice: a loop may carry a value back
            if self.hot(value):
                names = {n.id for target in targets for n in walk(target) if isinstance(n, ast.Name)}
                self.names |= names
                if isinstance(value, ast.Dict):
                    entries = [(constant(k), v) for k, v in zip(value.keys, value.values, strict=True)]
                    self.cold |= {(name, key) for name in names for key, v in entries if key and not self.hot(v)}

    def hot(self, node: ast.AST) -> bool:
        """Tell whether this expression's value carries it, through formatting but not through arbitrary calls."""
        if self.source(node):
            return True
        match node:
            case ast.Name():
                return node.id in self.names
            case ast.Attribute():
                carries = node.attr in self.parts if self.parts else node.attr not in TELLS_LITTLE
                return carries and self.hot(node.value)
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper)):
                length = constant(upper, int)
                short = length is not None and length <= SHOWN
                masks = isinstance(lower, ast.UnaryOp) or short or (self.cut and upper is not None)
                return not masks and self.hot(value)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)) if (name, key) in self.cold:
                return False
            case ast.Subscript() | ast.Starred() | ast.Await() | ast.FormattedValue() | ast.keyword() | ast.NamedExpr():
                return self.hot(node.value)
            case ast.JoinedStr() | ast.BoolOp():
                return any(map(self.hot, node.values))
            case ast.BinOp():
                return self.hot(node.left) or self.hot(node.right)
            case ast.IfExp():
                return self.hot(node.body) or self.hot(node.orelse)
            case ast.Dict():
                return any(map(self.hot, node.values))
            case ast.List() | ast.Tuple() | ast.Set():
                return any(map(self.hot, node.elts))
            case ast.Call():
                built = self.built and last(node)[:1].isupper()
                if not built and last(node) not in self.passing:
                    return False
                if isinstance(node.func, ast.Attribute) and self.hot(node.func.value):
                    return True
                coded = last(node) in ("encode", "decode")  # jwt.encode(claims, key) shows no key
                return not coded and any(map(self.hot, (*node.args, *node.keywords)))
        return False
