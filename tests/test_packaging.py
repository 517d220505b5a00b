import itertools
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata

import pytest
from packaging import requirements, specifiers

import passk_jax
from tests.tiny import TINY, environment

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = [requirements.Requirement(line) for line in re.findall(r"^\w.*", LOCK, re.MULTILINE)]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKED = ("", "all", "dev", "docs")  # what `make lock` compiles
ACCELERATORS = ("tpu", "tpu-plan", "gpu")


def declared(extra, python=None):
    """What setup.py asks for, on one Python: with extra="" the plain package."""
    asked = map(requirements.Requirement, metadata.requires("passk_jax"))
    place = {"extra": extra, **on(python or platform.python_version())}
    return [r for r in asked if r.marker is None or r.marker.evaluate(place)]


def on(python):
    return {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python if python.count(".") == 2 else f"{python}.20",
    }


def pinned(python):
    """{name: version} of what the lock installs on one Python, here."""
    chosen = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(on(python))]
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in chosen)
    names = [canonical(pin.name) for pin in chosen]
    assert len(set(names)) == len(names)  # one pin each
    return dict(zip(names, (str(pin.specifier)[2:] for pin in chosen), strict=True))


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_packages_own():
    assert metadata.version("passk_jax") == passk_jax.__version__
    with pytest.raises(AttributeError, match="passk_jax"):
        passk_jax.version  # noqa: B018


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", LOCKED)
def test_every_dependency_has_one_pin_within_its_bounds(extra, python):
    pins = pinned(python)
    for asked in declared(extra, python):
        assert asked.specifier.contains(pins[canonical(asked.name)]), asked


def test_what_is_installed_is_what_is_pinned():
    pins = pinned(platform.python_version())
    for asked in itertools.chain.from_iterable(map(declared, LOCKED)):
        assert metadata.version(asked.name) == pins[canonical(asked.name)]


def test_nothing_but_the_python_decides_between_two_versions():
    # The lock may leave a package out on some systems, but never pins another version of it there.
    versions = {}
    for pin in PINS:
        versions.setdefault(canonical(pin.name), []).append(str(pin.marker))
    for forks in (found for found in versions.values() if len(found) > 1):
        for fork in forks:
            assert re.fullmatch(r'python_full_version (<|>=) "3\.[\d.]+"', fork)


def test_each_python_gets_its_newest_gemma():
    old, *new = map(pinned, PYTHONS)
    assert old["gemma"] == "3.3.0" and old["kauldron"].startswith("1.3.")
    assert specifiers.SpecifierSet("<0.10.2").contains(old["jax"])
    for pins in new:
        assert specifiers.SpecifierSet(">=4.0.1").contains(pins["gemma"])
        assert pins["kauldron"].startswith("1.4.") and pins["jax"].startswith("0.12.")


def test_the_core_has_no_upper_bounds_and_only_what_the_default_job_imports():
    core = declared("")
    assert all(re.fullmatch(r">=[\d.]+", str(asked.specifier)) for asked in core)
    heavy = {"gemma", "kauldron", "seqio", "tensorflow", "matplotlib", "google-tunix"}
    for python in PYTHONS:
        assert not heavy & {canonical(asked.name) for asked in declared("", python)}


def test_every_pin_accepts_this_python():
    # uv lets a release pass that declares itself too old for this Python; pip would refuse it.
    refusing = []
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            accepted = metadata.metadata(pin.name).get("Requires-Python", "")
            if not specifiers.SpecifierSet(accepted).contains(platform.python_version()):
                refusing.append(f"{pin} ({accepted})")
    assert not refusing


def test_lock_names_no_machine():
    # `--index-url`, `--find-links`, `name @ file:///...` and the like belong to one machine only.
    assert not re.search(r"^\s*-|://|@", LOCK, re.MULTILINE)


def test_all_is_every_extra_that_any_machine_can_install():
    special = {*ACCELERATORS, "puzzles", "parity", "pretrained", "trackio", "trl"}
    special |= {"dev", "docs", "all"}
    extras = set(metadata.metadata("passk_jax").get_all("Provides-Extra")) - special
    for python in PYTHONS:
        parts = {asked for extra in extras for asked in needs(extra, python)}
        assert needs("all", python) == parts and {"gemma", "seqio"} <= {asked[0] for asked in parts}


def needs(extra, python):
    plain = {str(asked) for asked in declared("", python)}
    added = (asked for asked in declared(extra, python) if str(asked) not in plain)
    return {(canonical(r.name), *sorted(r.extras), str(r.specifier)) for r in added}


@pytest.mark.parametrize("extra", ACCELERATORS)
def test_accelerator_extras_are_extras_of_jax(extra):
    # An extra that jax does not have would install nothing, with no more than a warning. For plans
    # it is the TPU's, so that they are compiled by the version that this jax wants on a TPU.
    added = {str(r) for r in declared(extra)} - {str(r) for r in declared("")}
    (backend,) = {requirements.Requirement(r).extras.pop() for r in added}
    assert backend in metadata.metadata("jax").get_all("Provides-Extra")


def test_a_config_imports_nothing_that_is_in_a_checkout_only():
    for path in ROOT.glob("configs/*.py"):
        assert not re.search(r"^(from|import) (configs|tests|experiments)", path.read_text(), re.M)


# What is built and installed, outside of the checkout.


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist; `build` makes the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # A copy: what a build writes beside setup.py would come between two tests that run at once.
    left_out = shutil.ignore_patterns(
        "runs", "build", "*.egg-info", "__pycache__", ".venv*", ".*_cache"
    )
    source = shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=left_out)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture
def install(built, tmp_path):
    """Makes an environment of the wheel and some packages, linked from this environment."""

    def make(*names):
        venv.create(tmp_path / "env", with_pip=False)
        (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
        with zipfile.ZipFile(built[0]) as wheel:
            wheel.extractall(site)
        for name in sorted(closure(names)):
            link(metadata.distribution(name), site)
        return tmp_path / "env/bin/python"

    return make


def closure(asked):
    """The names of all that is needed, as the installed packages declare it."""
    found, waiting = set(), [requirements.Requirement(str(r)) for r in asked]
    while waiting:
        asked = waiting.pop()
        key = (canonical(asked.name), *sorted(asked.extras))
        if key not in found:
            found.add(key)
            for text in metadata.requires(asked.name) or ():
                further = requirements.Requirement(text)
                extras = asked.extras or {""}
                if further.marker is None or any(
                    further.marker.evaluate({"extra": extra}) for extra in extras
                ):
                    waiting.append(further)
    return {name for name, *_ in found}


def link(distribution, site):
    for file in distribution.files:
        if ".." not in file.parts and file.suffix != ".pyc":
            place = site / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(file.locate())
                compiled = file.locate().with_name("__pycache__")
                if compiled.exists() and not place.with_name("__pycache__").exists():
                    place.with_name("__pycache__").symlink_to(compiled)


def run(python, *arguments, folder):
    """In an empty folder, with nothing of this environment or of the checkout on the path."""
    variables = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_and_the_sdist_hold_every_file(built):
    wheel, sdist = built
    files = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("**/*.py", "**/*.jinja", "**/*.js", "**/golden.json", "configs/*.py")
        for path in (ROOT / "passk_jax").glob(pattern)
    }
    assert "passk_jax/configs/arithmetic.py" in files
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert inside == files
    with tarfile.open(sdist) as opened:
        inside = {
            name.partition("/")[2] for name in opened.getnames() if opened.getmember(name).isfile()
        }
    assert files | {"configs/arithmetic.py", "tests/tiny.py", "README.md", "LICENSE"} <= inside
    assert sdist.name == f"passk_jax-{version}.tar.gz"


@pytest.mark.slow
def test_the_transforms_need_jax_and_numpy_only(install, tmp_path):
    script = (
        "import jax.numpy as jnp\n"
        "from passk_jax import transforms\n"
        "print(transforms.sloo_minus_one(jnp.array([0.0, 0.0, 0.0, 1.0]), 2))"
    )
    python = install("jax", "numpy")
    done = run(python, "-c", script, folder=tmp_path)
    assert done.stdout.strip() == "[0. 0. 0. 2.]"
    table = run(python, "-m", "passk_jax.transforms", folder=tmp_path)
    assert "sloo_minus_one" in table.stdout


@pytest.mark.slow
def test_the_wheel_trains_with_what_it_declares_and_reports_with_the_extra(install, tmp_path):
    flags = [
        f"--config.{key}={value}" for key, value in (TINY | {"writers": ("tensorboard",)}).items()
    ]
    train = ["-m", "passk_jax.train", "--config", "arithmetic", "--workdir", "run", *flags]
    folder = tmp_path / "empty"
    folder.mkdir()
    python = install(*declared(""))
    done = run(python, *train, folder=folder)
    assert "no report: the report needs " in done.stdout
    assert "pip install 'passk_jax[report]'" in done.stdout
    rows = (folder / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == TINY["steps"]
    assert list((folder / "run/tensorboard").iterdir())

    python = install(*declared("report"))
    done = run(python, *train, folder=folder)
    assert "report: run/report.html" in done.stdout
    assert (folder / "run/report.html").stat().st_size > 100_000
