"""Mutation check: break one thing in the source at a time, and see whether a test notices.

    python -m tests.mutation sailctl/objectives sailctl/preferences/oracle.py

A mutant swaps an operator, drops a term, an argument or a statement, moves a constant, or takes a branch
always or never. It is written into a temporary copy of the package, never into the working tree, and its
tests run in a process of their own with a time limit. A mutant that no test notices is printed and makes the
command fail (exit 1), unless ``EQUIVALENT`` says why nothing could notice it.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("sailctl", "envs", "conf", "tests", "conftest.py", "pyproject.toml")

TESTS = {
    "actions": ("actions", "action_gradients"),
    "sail": ("objectives", "enumeration"),
    "ranking": ("ranking", "enumeration"),
    "robust": ("robust", "objectives"),
}
"""Unit tests of a source file, the quickest first, where they are not just those of its own name."""

PRELOADED = (
    *("torch", "torch._dynamo", "torch.testing", "numpy.testing", "numpy.polynomial", "mujoco", "gymnasium"),
    *("hydra", "omegaconf", "hypothesis.strategies", "pytest"),
)
"""Third-party modules that tests import, loaded before the mutants are."""

EQUIVALENT = {
    (
        "ranking.py",
        "return rho * (likelihood - plackett_luce(score.sort(dim=1).values))",
        "return rho * (likelihood - plackett_luce((score.sort()).values))",
    ): "the last dimension is the second",
    ("ranking.py", "if rho != 0:", "if True:"): "with rho 0 the cost is 0",
    ("ranking.py", "if rho != 0:", "if rho != -1:"): "rho is not negative, and with 0 the cost is 0",
    (
        "clipping.py",
        "change = (logp - behaviour_logp).detach()",
        "change = (logp - behaviour_logp)",
    ): "only its values are used",
    (
        "clipping.py",
        "too_far = (gradient * change < 0) & (change.abs() > clip)",
        "too_far = ((gradient * change <= 0)) & (change.abs() > clip)",
    ): "a product of 0 beyond the bound has a gradient of 0, which the mask leaves at 0",
    (
        "clipping.py",
        "too_far = (gradient * change < 0) & (change.abs() > clip)",
        "too_far = ((gradient / change) < 0) & (change.abs() > clip)",
    ): "product and quotient have the same sign, and beyond the bound the change is not 0",
    (
        "actions.py",
        "return twin_values.amin(0) - 0.5 * (pessimism - 1.0) * (twin_values[0] - twin_values[1]).abs()",
        "return twin_values.amin(0) - 0.5 * (pessimism - 1.0) * ((-(twin_values[0] - twin_values[1]))).abs()",
    ): "its absolute value is taken",
    (
        "actions.py",
        "return tau + doubt * (first - second).abs().mean(dim=1, keepdim=True)",
        "return tau + doubt * ((-(first - second))).abs().mean(dim=1, keepdim=True)",
    ): "its absolute value is taken",
    (
        "actions.py",
        "_check_shapes(q, logp_fixed)",
        "(_check_shapes(logp_fixed, q))",
    ): "shapes are equal in any order",
    (
        "actions.py",
        "_check_shapes(q, logp, ref_logp)",
        "(_check_shapes(logp, q, ref_logp))",
    ): "shapes are equal in any order",
    (
        "actions.py",
        "_check_shapes(q, logp, ref_logp)",
        "(_check_shapes(q, ref_logp, logp))",
    ): "shapes are equal in any order",
    (
        "actions.py",
        "if c != 0:",
        "if True:",
    ): "with c = 0 what is added is exactly 0: the test only saves time",
    (
        "actions.py",
        "if c != 0:",
        "if c != -1:",
    ): "with c = 0 what is added is exactly 0, and c is never negative",
    (
        "actions.py",
        'metrics["t2_weight"] = _sampling_factor(-pair_losses, c, True).abs().mean()',
        'metrics["t2_weight"] = _sampling_factor(pair_losses, c, True).abs().mean()',
    ): "its absolute value is taken",
    (
        "kl.py",
        "shift = (mean_p - mean_q) * torch.exp(-log_std_q)",
        "shift = (-((mean_p - mean_q) * torch.exp(-log_std_q)))",
    ): "it is squared",
    (
        "kl.py",
        "shift = (mean_p - mean_q) * torch.exp(-log_std_q)",
        "shift = ((-(mean_p - mean_q))) * torch.exp(-log_std_q)",
    ): "it is squared",
    (
        "oracle.py",
        "label[self._ties(returns[pairs.first] - returns[pairs.second], difference, equal)] = 0.0",
        "label[self._ties((-(returns[pairs.first] - returns[pairs.second])), difference, equal)] = 0.0",
    ): "a tie is one either way round",
    (
        "oracle.py",
        "scale = self._scale(utility[:, first] - utility[:, second])",
        "scale = self._scale((-(utility[:, first] - utility[:, second])))",
    ): "differences are squared",
    (
        "oracle.py",
        "return math.sqrt(self._squares / self._differences) if self._squares > 0 else 1.0",
        "return math.sqrt(self._squares / self._differences) if self._squares > 0 else 2.0",
    ): "where all differences are 0, dividing them changes nothing",
    (
        "robust.py",
        "favoured = torch.where(h > 0, probability, 1 - probability)",
        "favoured = torch.where((h >= 0), probability, 1 - probability)",
    ): "at h = 0 the cost and its slope are 0 either way",
    (
        "sail.py",
        "return other_group @ values / other_group.sum(dim=1).clamp(min=1)",
        "return other_group @ values / other_group.sum(dim=0).clamp(min=1)",
    ): "being of another group is symmetric",
    (
        "sail.py",
        "if rho != 0:",
        "if True:",
    ): "with rho = 0 what is added is exactly 0: the test only saves time",
    (
        "sail.py",
        "if rho != 0:",
        "if rho != -1:",
    ): "with rho = 0 what is added is exactly 0, and rho is never negative",
    (
        "sail.py",
        '"t1_weight": beta * ((1 + label) / 2 - h.sigmoid()).abs().mean(),',
        '"t1_weight": beta * ((-((1 + label) / 2 - h.sigmoid()))).abs().mean(),',
    ): "its absolute value is taken",
}
"""Mutants that no test can notice: file, line and changed line as they are printed, and why."""

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {"min": "max", "sum": "mean", "any": "all", "zeros": "ones", "zeros_like": "ones_like"}
NAMES |= {"no_grad": "enable_grad", "exp": "expm1", "log": "log1p", "argmin": "argmax", "floor": "ceil"}
NAMES |= {new: old for old, new in NAMES.items()}
COMMUTATIVE = ("min", "max", "clip")
"""Functions that treat their first two arguments alike."""
CONVERSIONS = ("float", "int", "str", "bool", "list", "tuple", "set", "dict", "len", "range", "sorted")

Edit = tuple[ast.expr | ast.stmt, ast.AST]
"""A node of the source, and what to write in its place."""


@dataclass(frozen=True)
class Mutant:
    """A source file with one change."""

    file: Path
    line: int
    before: str
    after: str

    @property
    def change(self) -> list[str]:
        """The changed lines, with - and + before them."""
        diff = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), n=0, lineterm="")
        return [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]

    @property
    def key(self) -> tuple[str, str, str]:
        """How ``EQUIVALENT`` names it."""
        old, new = (" ".join(line[1:].strip() for line in self.change if line[0] == sign) for sign in "-+")
        return self.file.name, old, new


# Making mutants


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    before = file.read_text()
    tree = ast.parse(before)
    seen = {ast.dump(tree)}
    found = []
    for node in nodes(tree):
        for target, replacement in edits(node):
            after = written(before, target, replacement)
            if (meaning := ast.dump(ast.parse(after))) not in seen:
                seen.add(meaning)
                found.append(Mutant(file.relative_to(ROOT), target.lineno, before, after))
    yield from sorted(found, key=lambda mutant: mutant.line)


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, imports, docstrings and messages."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            left_out = isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr) or is_text(child)
            if isinstance(child, ast.AST) and not left_out:
                yield from nodes(child)


def is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def written(source: str, target: ast.expr | ast.stmt, replacement: ast.AST) -> str:
    """The source with one node replaced."""
    lines = source.encode().splitlines(keepends=True)
    assert target.end_lineno is not None
    start = sum(map(len, lines[: target.lineno - 1])) + target.col_offset
    end = sum(map(len, lines[: target.end_lineno - 1])) + (target.end_col_offset or 0)
    text = ast.unparse(ast.fix_missing_locations(replacement))
    if isinstance(target, ast.expr) and not isinstance(replacement, ast.Name | ast.Constant | ast.Attribute):
        text = f"({text})"
    whole = b"".join(lines)
    return (whole[:start] + text.encode() + whole[end:]).decode()


def edits(node: ast.AST) -> Iterator[Edit]:
    """Every single change of one node."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield node, left
            yield node, right
            yield node, ast.UnaryOp(ast.USub(), node)
            if type(op) in OPERATORS:
                yield node, ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.UnaryOp(operand=operand):
            yield node, operand
        case ast.BoolOp(op=op, values=values):
            yield node, ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from ((node, ast.BoolOp(op, without(values, i))) for i in range(len(values)))
        case ast.Compare(left=left, ops=ops, comparators=right):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield node, ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], right)
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, ast.Constant(value + 1)
            yield node, ast.Constant(value - 1)
        case ast.Constant(value=str(value)):
            yield node, ast.Constant(value + "_")
        case ast.IfExp(body=body, orelse=orelse):
            yield node, body
            yield node, orelse
        case ast.If(test=test) | ast.While(test=test):
            yield test, ast.Constant(True)
            yield test, ast.Constant(False)
        case ast.comprehension(ifs=ifs):
            yield from ((test, ast.Constant(True)) for test in ifs)
        case ast.Slice(lower=lower, upper=upper):
            yield from ((bound, ast.Constant(None)) for bound in (lower, upper) if bound is not None)
        case ast.Call():
            yield from call_edits(node)
        case ast.Attribute(value=value, attr=name) if name in NAMES:
            yield node, ast.Attribute(value, NAMES[name])
        case ast.Name(id=name) if name in NAMES:
            yield node, ast.Name(NAMES[name])
        case ast.AugAssign(target=target, op=op, value=value):
            yield node, ast.Pass()
            yield node, ast.Assign([target], value)
            if type(op) in OPERATORS:
                yield node, ast.AugAssign(target, OPERATORS[type(op)](), value)
        case ast.Assign() | ast.Expr() | ast.Raise() | ast.Break() | ast.Continue():
            yield node, ast.Pass()


def call_edits(call: ast.Call) -> Iterator[Edit]:
    """Drop or swap arguments, or the call around its only argument or its object."""
    args, keywords = call.args, call.keywords
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
    if len(args) + len(keywords) > 1:
        yield from ((call, ast.Call(call.func, without(args, i), keywords)) for i in range(len(args)))
    for i in range(1 if name in COMMUTATIVE else 0, len(args) - 1):
        swapped = [*args[:i], args[i + 1], args[i], *args[i + 2 :]]
        yield call, ast.Call(call.func, swapped, keywords)
    for i, keyword in enumerate(keywords):
        yield call, ast.Call(call.func, args, without(keywords, i))
        if keyword.arg in NAMES:
            renamed = ast.keyword(NAMES[keyword.arg], keyword.value)
            yield call, ast.Call(call.func, args, [*keywords[:i], renamed, *keywords[i + 1 :]])
    if len(args) == 1 and name not in CONVERSIONS:
        yield call, args[0]
    if isinstance(call.func, ast.Attribute):
        yield call, call.func.value


def without(items: list, i: int) -> list:
    return [*items[:i], *items[i + 1 :]]


# Running tests on them


def test_files(file: Path) -> list[str]:
    return [f"tests/unit/test_{name}.py" for name in TESTS.get(file.stem, (file.stem,))]


def start(place: Path, tests: list[str], limit: float) -> int:
    """Run tests in a child process on the copy in ``place``; its exit status is that of pytest."""
    child = os.fork()
    if child:
        return child
    signal.alarm(int(limit))  # whoever runs longer is killed
    output = os.open(place / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(place)
    sys.path[:0] = [str(place), str(place / "envs")]
    status = 3
    try:
        package = importlib.import_module("sailctl")
        if Path(str(package.__file__)).is_relative_to(place):
            status = int(importlib.import_module("pytest").main(["-x", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(status)


def killed(status: int) -> bool:
    """Whether the tests saw it: a failure (1), no module to collect (2), or no end within the limit."""
    if os.WIFSIGNALED(status):
        return True
    code = os.WEXITSTATUS(status)
    if code not in (0, 1, 2):
        raise RuntimeError(f"pytest could not run (exit status {code})")
    return code != 0


def survivors(file: Path, places: list[Path]) -> tuple[int, list[Mutant]]:
    """How many mutants a file has, and those that its tests let pass."""
    tests = test_files(file)
    begun = time.monotonic()
    if killed(os.waitpid(start(places[0], tests, limit=600), 0)[1]):
        raise SystemExit(f"{file}: its tests fail without a mutant\n{(places[0] / 'output.txt').read_text()}")
    limit = 10 + 3 * (time.monotonic() - begun)

    left: list[Mutant] = []
    running: dict[int, tuple[Mutant, Path]] = {}
    free, count = list(places), 0

    def reap() -> None:
        child, status = os.wait()
        mutant, place = running.pop(child)
        (place / mutant.file).write_text(mutant.before)
        free.append(place)
        if not killed(status):
            left.append(mutant)

    for mutant in mutants(file):
        if not free:
            reap()
        count += 1
        place = free.pop()
        (place / mutant.file).write_text(mutant.after)
        running[start(place, tests, limit * len(places))] = mutant, place
    while running:
        reap()
    return count, left


def check(files: list[Path], jobs: int) -> int:
    """Mutants that survive without a reason and reasons without a mutant: both are printed and counted."""
    unexplained = 0
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / str(job) for job in range(jobs)]
        for place in places:
            for name in COPIED:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                place.mkdir(exist_ok=True)
                copy(ROOT / name, place / name)
        for file in files:
            begun = time.monotonic()
            count, left = survivors(file, places)
            unknown = [mutant for mutant in left if mutant.key not in EQUIVALENT]
            explained = {mutant.key for mutant in left} & EQUIVALENT.keys()
            idle = [key for key in EQUIVALENT if key[0] == file.name and key not in explained]
            unexplained += len(unknown) + len(idle)
            print(
                f"{file.relative_to(ROOT)}: {count} mutants, {count - len(left)} killed, "
                f"{len(left) - len(unknown)} equivalent, {len(unknown)} survived "
                f"({time.monotonic() - begun:.0f} s)",
                flush=True,
            )
            for mutant in unknown:
                print(f"{mutant.file}:{mutant.line}", *mutant.change, sep="\n", end="\n\n", flush=True)
            for key in idle:
                print(f"EQUIVALENT names a mutant that is not made or does not survive: {key}", flush=True)
    return unexplained


def prepare() -> None:
    """Load once what every child would load again, and leave out what only costs time."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True  # a mutant may be as long and as old as the one before it
    for name in PRELOADED:
        importlib.import_module(name)
    hypothesis = importlib.import_module("hypothesis")
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # any failure will do, not the simplest
    hypothesis.settings.register_profile("mutation", phases=phases)
    hypothesis.settings.load_profile("mutation")
    gc.freeze()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="break the source one piece at a time; exit 1 if no test sees it"
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders of files, of sailctl/")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tested at a time")
    args = parser.parse_args()
    for path in args.paths:
        if not path.exists():
            parser.error(f"{path} does not exist; run this from the root of the repository")
    files = [file for path in args.paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    prepare()
    survived = check([file.resolve() for file in files if file.name != "__init__.py"], args.jobs)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
