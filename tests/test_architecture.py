"""The rooms of docs/architecture.md: who imports whom, and what the doors cost."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "passk_jax"

# What each room may import of the others. The commands may import all.
MAY_IMPORT = {
    "errors": set(),
    "hub": {"errors"},
    "transforms": {"errors"},
    "tasks": {"errors", "hub"},
    "policy": {"errors", "hub"},
    "processes": {"errors"},
    "rollout": {"errors", "policy"},
    "learner": {"errors", "policy", "processes", "rollout"},
    "tracking": {"errors", "transforms", "tasks"},
    "run": {
        *"errors hub configs transforms tasks policy processes rollout learner tracking".split()
    },
    "planning": {"errors", "policy", "rollout", "learner", "tracking", "run"},
    "integrations": {"errors", "transforms"},
    "conformance": {"errors", "transforms"},
}


def imported(file):
    """The modules of the package that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(file):
    parts = [name.split(".") for name in imported(file)]
    return {name[1] for name in parts if name[0] == "passk_jax" and len(name) > 1}


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in MAY_IMPORT:
            yield pytest.param(path, room, id=str(path.relative_to(PACKAGE)))


@pytest.mark.parametrize(("path", "room"), files())
def test_a_room_imports_only_the_rooms_before_it(path, room):
    assert rooms(path) - {room} <= MAY_IMPORT[room]


def test_every_room_has_its_place():
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert there - {"configs"} <= set(MAY_IMPORT)
    commands = {path.stem for path in PACKAGE.glob("*.py")} - set(MAY_IMPORT) - {"__init__"}
    assert commands == set("train evaluate difficulty export plan pretrained report sweep".split())


def test_the_commands_are_short():
    for path in PACKAGE.glob("*.py"):
        if path.stem not in MAY_IMPORT:
            assert len(path.read_text().splitlines()) < 100, path
