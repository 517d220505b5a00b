"""Would the tests notice? Changes one token of the package at a time and runs its mirror tests.

    python tests/mutate.py passk_jax/transforms passk_jax/learner/loss.py --sample 60 --seed 1

Of each path (a module, or a folder of them) so many mutants are drawn, and for each one the fast
tests that mirror it run until one fails: of `passk_jax/learner/loss.py` its doctests, then
`tests/learner/test_loss.py`, then the rest of `tests/learner`. Each line says which test noticed;
of the mutants that survived it is for a reader to say whether they change what the program does.
No file is touched: a mutant is compiled from memory, in a child process and in the commands that
its tests start.

A mutant is cheap: libraries are imported once, before the fork, programs are shared through
JAX's cache on the disk (`JAX_COMPILATION_CACHE_DIR` keeps it from run to run), and the tests that
noticed other mutants of the module come first.
"""

import argparse
import ast
import collections
import contextlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import json
import math
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
OURS = {"passk_jax", "tests", "configs", "experiments", "benchmarks", "conftest", "__main__"}


def _both_ways(pairs):
    return {a: b for pair in pairs.split(", ") for a, b in itertools.permutations(pair.split())}


NAMES = _both_ways("min max, minimum maximum, any all, zeros ones, zeros_like ones_like, sum mean")
OPERATORS = {"FloorDiv": "Mult", "Mod": "FloorDiv", "Pow": "Mult", **_both_ways(
    "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, BitAnd BitOr, "
    "RShift LShift"
)}  # fmt: skip


SYMMETRIC = {"min", "max", "minimum", "maximum"}


def variants(node):
    """Yields (a node of the tree, what stands there instead)."""

    def changed(**fields):
        return node, type(node)(**dict(ast.iter_fields(node)) | fields)

    match node:
        case ast.Compare(ops=[op]) if type(op).__name__ in OPERATORS:
            yield changed(ops=[getattr(ast, OPERATORS[type(op).__name__])()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op).__name__ in OPERATORS:
            yield changed(op=getattr(ast, OPERATORS[type(op).__name__])())
        case ast.UnaryOp(operand=operand):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield changed(value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (changed(value=new) for new in (value + 1, value - 1) if new >= 0)
        case ast.Constant(value=str(value)) if " " not in value:  # prose has spaces
            yield changed(value=value + "_")
        case ast.Attribute(attr=name) if name in NAMES:
            yield changed(attr=NAMES[name])
        case ast.Name(id=name) if name in NAMES:
            yield changed(id=NAMES[name])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Call(args=args, keywords=keywords):
            if len(args) == 1 and not keywords and not isinstance(args[0], ast.Starred):
                yield node, args[0]
            for i, (one, two) in enumerate(itertools.pairwise(args)):
                if ast.unparse(node.func).rpartition(".")[2] in SYMMETRIC:
                    continue
                if not isinstance(one, ast.Starred) and not isinstance(two, ast.Starred):
                    yield changed(args=[*args[:i], two, one, *args[i + 2 :]])
            for i, one in enumerate(keywords):
                others = keywords[:i] + keywords[i + 1 :]
                yield changed(keywords=others)
                two = others[i - 1] if others else one
                if one.arg and two.arg and ast.dump(one.value) != ast.dump(two.value):
                    others.pop(i - 1)  # the values of two neighbours
                    swapped = [ast.keyword(one.arg, two.value), ast.keyword(two.arg, one.value)]
                    yield changed(keywords=others + swapped)
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Raise():
            yield node, ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            if name in {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}:
                yield node, ast.Pass()


def parts(node):
    """The nodes of a tree, without annotations, docstrings, f-strings, messages and `__all__`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    yield node
    if isinstance(node, ast.JoinedStr | ast.Raise):
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from parts(child)


def mutants(path):
    """Each mutant of a module: (path, its source, where and what in words)."""
    source = path.read_bytes()
    starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    for old, new in itertools.chain.from_iterable(map(variants, parts(ast.parse(source)))):
        first = starts[old.lineno - 1] + old.col_offset
        last = starts[old.end_lineno - 1] + old.end_col_offset
        text = ast.unparse(ast.fix_missing_locations(new))
        text = text if isinstance(new, ast.stmt | ast.Constant | ast.Name) else f"({text})"
        words = f"{path}:{old.lineno}:  {' '.join(source[first:last].decode().split())}  ->  {text}"
        yield path, source[:first] + text.encode() + source[last:], words


class Mutant(importlib.machinery.SourceFileLoader):
    """Imports one module of the package from a source in memory."""

    def __init__(self, path, source):
        self.module = ".".join(path.with_suffix("").parts)
        super().__init__(self.module, str(ROOT / path))
        self.source = source

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname):
        return compile(self.source, self.path, "exec", dont_inherit=True)


def install(path, source, folder):
    """Makes this process import a mutant, and those that it starts: a folder tells them of it."""
    mutant = Mutant(path, source)
    sys.meta_path.insert(0, mutant)
    (folder / "mutant.py").write_bytes(source)
    (folder / "sitecustomize.py").write_text(
        f"import pathlib, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests import mutate\n"
        f"source = pathlib.Path({str(folder / 'mutant.py')!r}).read_bytes()\n"
        f"sys.meta_path.insert(0, mutate.Mutant(pathlib.Path({str(path)!r}), source))\n"
        "sys.path.pop(0)\n"
    )
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    return mutant


def run(path, source, tests, seconds):
    """Runs tests with a module made of `source`, in a child.

    Returns pytest's exit code, or None where time ran out; and what the child told: "failed", the
    first test that did, or "libraries", what it imported, and "seconds" of the processor.
    """
    import pytest

    readable, writable = os.pipe()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mutant_"))
    pid = os.fork()
    if not pid:
        code = 1
        try:
            tell = lambda **what: os.write(writable, json.dumps(what).encode() + b"\n")  # noqa: E731
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            # Of the processor, so that a busy machine ends no mutant, and generously of the clock.
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            signal.alarm(30 * seconds)
            mutant = install(path, source, folder)
            importlib.import_module(mutant.module)
            mutant.pytest_exception_interact = lambda node: tell(failed=node.nodeid)
            options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
            code = pytest.main([*options, *tests], [mutant])
            libraries = [name for name in sys.modules if name.partition(".")[0] not in OURS]
            tell(libraries=libraries, seconds=time.process_time())
        finally:
            os._exit(code)
    os.close(writable)
    with open(readable) as lines:
        told = dict(itertools.chain.from_iterable(json.loads(line).items() for line in lines))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    shutil.rmtree(folder)
    return None if code in (-signal.SIGXCPU, -signal.SIGALRM) else code, told


def tests_of(path, own):
    """What mirrors a module: its doctests with the tests of its name, then those of its folder."""
    files = sorted(pathlib.Path("tests", *path.parts[1:-1]).glob("test_*.py"))
    named = [file for file in files if path.stem in file.stem]
    others = [file for file in files if file not in named and len(path.parts) > 2 and not own]
    return [str(path), *map(str, named)], [*map(str, others)]


def warmed_up(path, tests):
    """Imports what the tests of a module need and compiles their programs; seconds it takes."""
    code, told = run(path, path.read_bytes(), [*itertools.chain(*tests)], 3600)
    if code != 0:
        sys.exit(f"{path}: without a mutant its tests end with {code}: {told.get('failed')}")
    for name in told["libraries"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return told["seconds"]


def fate(mutant, killers, mirror, seconds):
    """What became of a mutant, and the test that noticed: those that noticed others go first."""
    path, source, _ = mutant
    former = [name for name, _ in killers.most_common(8)]
    for tests in filter(None, (former, *mirror)):
        code, told = run(path, source, tests, seconds)
        nothing_there = code == 5 or (tests is former and code and "failed" not in told)
        if code != 0 and not nothing_there:
            test = told.get("failed", "at import")
            killers.update([test] if "::" in test else [])
            return "time ran out" if code is None else "killed", test
    return "SURVIVED", ""


def share(killed, tried, z=1.96):
    """A share with Wilson's 95% interval, in words."""
    p, scale = killed / tried, 1 + z**2 / tried
    half = z * math.sqrt(p * (1 - p) / tried + (z / (2 * tried)) ** 2) / scale
    middle = (p + z**2 / (2 * tried)) / scale
    return f"{killed} of {tried} noticed: {p:.3f} [{middle - half:.3f}, {middle + half:.3f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=pathlib.Path, help="modules, or folders of them")
    parser.add_argument("--sample", type=int, default=50, help="how many mutants of each path")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="run only tests of the module's name")
    parser.add_argument("--only", default="", help="of the sample those with this in their line")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for path in args.paths:
        modules = sorted(path.rglob("[!_]*.py")) if path.is_dir() else [path]
        every = [mutant for module in modules for mutant in mutants(module)]
        drawn = random.Random(args.seed).sample(every, min(args.sample, len(every)))
        drawn = [mutant for mutant in drawn if args.only in mutant[-1]]
        killers, survived = collections.defaultdict(collections.Counter), 0
        mirror = {module: tests_of(module, args.own) for module in modules}
        seconds = math.ceil(60 + 3 * warmed_up(modules[0], mirror[modules[0]]))
        for mutant in sorted(drawn, key=lambda mutant: mutant[-1]):
            how, test = fate(mutant, killers[mutant[0]], mirror[mutant[0]], seconds)
            survived += how == "SURVIVED"
            print(f"{how:12}  {mutant[-1]}    {test}", flush=True)
        print(
            f"{path}: {len(every)} mutants, {share(len(drawn) - survived, len(drawn))}", flush=True
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        main()
