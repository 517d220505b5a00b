import pathlib
import platform
import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging import requirements, specifiers

import passk_jax

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = [requirements.Requirement(line) for line in re.findall(r"^\w.*", LOCK, re.MULTILINE)]


def declared(extra):
    """What setup.py asks for: with extra="" the plain package."""
    asked = map(requirements.Requirement, metadata.requires("passk_jax"))
    return [r for r in asked if r.marker is None or r.marker.evaluate({"extra": extra})]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_packages_own():
    assert metadata.version("passk_jax") == passk_jax.__version__


@pytest.mark.parametrize("asked", declared("dev"), ids=lambda r: r.name)
def test_every_dependency_has_one_pin_within_its_bounds(asked):
    (pin,) = [p for p in PINS if canonical(p.name) == canonical(asked.name)]
    assert pin.marker is None
    (exact,) = pin.specifier
    assert exact.operator == "=="
    assert asked.specifier.contains(exact.version)
    assert metadata.version(asked.name) == exact.version


def test_every_python_gets_the_same_versions():
    # A lock that forks between Pythons or systems pins a name twice, under different markers.
    names = [canonical(pin.name) for pin in PINS]
    assert sorted(set(names)) == sorted(names)


def test_every_pin_accepts_this_python():
    # uv lets a release pass that declares itself too old for this Python; pip would refuse it.
    refusing = []
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            accepted = metadata.metadata(pin.name)["Requires-Python"] or ""
            if not specifiers.SpecifierSet(accepted).contains(platform.python_version()):
                refusing.append(f"{pin} ({accepted})")
    assert not refusing


def test_every_module_is_installed(tmp_path):
    # Most folders of the package have no __init__.py, and setuptools' find_packages passes by them.
    args = [
        "setup.py",
        "-q",
        "build",
        "--build-base",
        tmp_path / "x",
        "--build-lib",
        tmp_path / "y",
    ]
    subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, check=True)
    files = {path.relative_to(ROOT) for path in (ROOT / "passk_jax").rglob("*.py")}
    installed = {path.relative_to(tmp_path / "y") for path in (tmp_path / "y").rglob("*.py")}
    assert installed == files


def test_lock_names_no_machine():
    # `--index-url`, `--find-links`, `name @ file:///...` and the like belong to one machine only.
    assert not re.search(r"^\s*-|://|@", LOCK, re.MULTILINE)


@pytest.mark.parametrize("extra", ["tpu", "gpu"])
def test_accelerator_extras_are_extras_of_jax(extra):
    # An extra that jax does not have would install nothing, with no more than a warning.
    added = {str(r) for r in declared(extra)} - {str(r) for r in declared("")}
    (backend,) = {requirements.Requirement(r).extras.pop() for r in added}
    assert backend in metadata.metadata("jax").get_all("Provides-Extra")


def test_plans_are_compiled_by_the_version_that_jax_wants_on_a_tpu():
    (libtpu,) = [r for r in declared("tpu-plan") if r.name == "libtpu"]
    wanted = [requirements.Requirement(text) for text in metadata.requires("jax")]
    (on_tpu,) = [r for r in wanted if r.name == "libtpu"]
    assert libtpu.specifier == on_tpu.specifier
