"""Mutants of a module: copies of it with one small fault each, which some test must find."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[1]
PACKAGE = "rh_prefect"

EXCLUDED = """\
none of texts for people (docstrings, log and error messages, and whether a line is logged), annotations, decorators,
the sizes of caches and the numbers of requests at once, since no test should depend on them; none of assert_never,
which is never reached; no None of a returned False, which is the same to every caller; of a large number its double and
half, and of a comparison with the present time not the moment at which both are equal, as nothing that a user meets
changes"""
"""The rules by which some faults are not tried."""

LARGE = 10

UNTESTED = (
    "_CACHE_SIZE",
    "AT_ONCE",
    "_AT_ONCE",
    "UPLOADS_AT_ONCE",
    "_FOLDERS_AT_A_TIME",
    "WORKERS",
    "FILE_WORKERS",
    "ANSWER_WORKERS",
)
"""Sizes of caches, and numbers of requests at once."""

CLOCKS = ("clock", "_clock", "monotonic", "now", "_now")

Change: TypeAlias = tuple[ast.expr | ast.stmt, str]
"""A node, and what is written in its place."""

_PAIRS: Sequence[tuple[type[ast.AST], type[ast.AST]]] = (
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
    (ast.Mult, ast.Div),
    (ast.BitOr, ast.BitAnd),
)
SWAPS: dict[type[ast.AST], Sequence[type[ast.AST]]] = {
    **{one: [two] for pair in _PAIRS for one, two in (pair, pair[::-1])},
    ast.FloorDiv: [ast.Mult],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
}
"""Operator -> those that stand in its place."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed expression or statement; `start` and `end` are bytes of the module's source."""

    module: str
    line: int
    start: int
    end: int
    new: str

    @property
    def path(self) -> str:
        return f"{PACKAGE}/{self.module}.py"

    def source(self, root: Path) -> bytes:
        """The whole module with the fault."""
        old = (root / self.path).read_bytes()
        return old[: self.start] + self.new.encode() + old[self.end :]

    def __str__(self) -> str:
        old = (ROOT / self.path).read_bytes()
        first, last = old.rfind(b"\n", 0, self.start) + 1, old.find(b"\n", self.end)
        changed = (old[first : self.start] + self.new.encode() + old[self.end : last]).decode()
        shown = [f"{self.path}:{self.line}"]
        shown += [f"  -{line}" for line in old[first:last].decode().splitlines()]
        return "\n".join(shown + [f"  +{line}" for line in changed.splitlines()])


def mutants_of(module: str) -> list[Mutant]:
    """Everything that can be changed in a module."""
    source = (ROOT / PACKAGE / f"{module}.py").read_bytes()
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = set()
    for node, new in _changes(ast.parse(source)):
        start = begins[node.lineno - 1] + node.col_offset
        end = begins[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        found.add(Mutant(module, node.lineno, start, end, new))
    return sorted(found, key=lambda one: (one.start, one.end, one.new))


def _changes(node: ast.AST) -> Iterator[Change]:
    """What could be written instead of a node or of what is in it."""
    yield from _changes_of(node)
    for child in _mutable_parts(node):
        yield from _changes(child)


def _mutable_parts(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.JoinedStr() | ast.arg() | ast.ImportFrom() | ast.Import():
            return
        case ast.Expr(ast.Constant()):  # a docstring
            return
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("_log")))):
            return
        case ast.Assign([ast.Name("model_config" | "__all__")]) | ast.Call(
            ast.Name("LruCache" | "LruSet" | "SingleFlight")
        ):
            return
        case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)) if name in UNTESTED:
            return
        case ast.If() if _only_logs(node):
            return
        case ast.Raise(ast.Call() as call):  # its message is not, but what else it is given
            yield from (keyword.value for keyword in call.keywords)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from (node.args, *node.body)
        case ast.ClassDef():
            yield from node.body
        case ast.AnnAssign():
            yield from [node.value] if node.value and ast.unparse(node.annotation) != "TypeAlias" else []
        case _:
            yield from ast.iter_child_nodes(node)


def _changes_of(node: ast.AST) -> Iterator[Change]:
    for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
        if isinstance(body, list):
            yield from _reordered(body)
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp() | ast.BinOp() | ast.Constant():
            yield from _changes_of_value(node)
        case ast.If() if _only_logs(node):
            return
        case ast.If() | ast.IfExp():
            yield _negated(node.test)
        case ast.comprehension():
            yield from (_negated(test) for test in node.ifs)
        case ast.match_case(guard=ast.expr() as guard):
            yield _negated(guard)
        case ast.MatchValue(ast.Constant(str() as text) as value):
            yield value, repr(f"{text}~")
        case ast.AugAssign() if type(node.op) in SWAPS and not _is_text(node):
            yield node, ast.unparse(ast.AugAssign(node.target, _swapped(node.op), node.value))
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant) or value.value not in (None, False):
            yield value, "None"
            yield from _strings(value)
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("_log")) | ast.Name("assert_never"))):
            return
        case ast.Raise() | ast.Expr(ast.Call() | ast.Await() | ast.Yield() | ast.YieldFrom()):
            yield node, "pass"


def _only_logs(node: ast.If) -> bool:
    return not node.orelse and all(ast.unparse(one).startswith("_log.") for one in node.body)


def _reordered(body: Sequence[ast.stmt]) -> Iterator[Change]:
    """Two steps in the other order: what is recorded before and after an effect decides who pays."""
    for first, second in pairwise(body):
        if not (_is_step(first) and _is_step(second)):
            continue
        bound = {one.id for one in ast.walk(first) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        if bound.isdisjoint(one.id for one in ast.walk(second) if isinstance(one, ast.Name)):
            both = ast.Expr(ast.Constant(None), lineno=first.lineno, col_offset=first.col_offset)
            both.end_lineno, both.end_col_offset = second.end_lineno, second.end_col_offset
            indent = "\n" + " " * first.col_offset
            yield both, indent.join(ast.unparse(one).replace("\n", indent) for one in (second, first))


def _is_step(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value) | ast.Assign(value=value) | ast.AnnAssign(value=value):
            return isinstance(value, ast.Yield | ast.YieldFrom | ast.Await | ast.Call) and not (
                isinstance(value, ast.Call) and isinstance(statement, ast.Assign | ast.AnnAssign)
            )
        case _:
            return False


def _changes_of_value(node: ast.expr) -> Iterator[Change]:
    match node:
        case ast.Compare():
            for at, old in enumerate(node.ops):
                swaps = SWAPS[type(old)]
                for swap in swaps[-1:] if _reads_clock(node) else swaps:  # the last one is the opposite
                    ops: list[Any] = [*node.ops[:at], swap(), *node.ops[at + 1 :]]
                    yield node, _text(ast.Compare(node.left, ops, node.comparators))
            yield from _strings(node.left, *node.comparators)
        case ast.BoolOp():
            yield node, _text(ast.BoolOp(_swapped(node.op), node.values))
        case ast.UnaryOp(ast.Not()):
            yield node, _text(node.operand)
        case ast.BinOp() if type(node.op) in SWAPS and not _is_text(node):
            yield node, _text(ast.BinOp(node.left, _swapped(node.op), node.right))
        case ast.Constant(bool() as value):
            yield node, str(not value)
        case ast.Constant(int() | float() as value):
            other = (value * 2, type(value)(value / 2)) if abs(value) >= LARGE else (value + 1, value - 1)
            yield from ((node, repr(one)) for one in other)


def _reads_clock(node: ast.AST) -> bool:
    """Whether a value contains the present time."""
    return any(getattr(one, "attr", getattr(one, "id", "")) in CLOCKS for one in ast.walk(node))


def _negated(test: ast.expr) -> Change:
    return test, f"(not {_text(test)})"


def _swapped(operator: ast.AST) -> Any:
    return SWAPS[type(operator)][0]()


def _strings(*values: ast.expr) -> Iterator[Change]:
    for value in values:
        match value:
            case ast.Constant(str() as text):
                yield value, repr(f"{text}~")
            case ast.Tuple(parts) | ast.Set(parts) | ast.List(parts):
                yield from _strings(*parts)
            case ast.IfExp():
                yield from _strings(value.body, value.orelse)


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_text(node: ast.AST) -> bool:
    return any(isinstance(one, ast.JoinedStr) or isinstance(getattr(one, "value", None), str) for one in ast.walk(node))
