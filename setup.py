"""The package passk_jax: what it needs, and the extras it can be installed with."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
README = ROOT / "README.md"
# Read, not imported: while the package is being installed, what it imports is not there yet.
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "passk_jax/__init__.py").read_text(), re.M)

setuptools.setup(
    name="passk_jax",
    version=VERSION[1],
    description="Training language models by reinforcement learning on pass@k, in JAX",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=setuptools.find_namespace_packages(include=["passk_jax", "passk_jax.*"]),
    package_data={"": ["*.html", "*.jinja"]},
    # Lower bounds; the exact versions that the tests run with are in requirements.lock.
    install_requires=[
        "absl-py>=2.3.1",
        "chex>=0.1.91",
        "etils>=1.12",
        "flax>=0.12.8",
        "gemma>=3.3.0",
        "jax>=0.10.0,<0.10.2",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml-collections>=1.1.0",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12.0",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "seqio>=0.0.20",
        "tensorboardX>=2.6.2",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        # gemma 3.3, the newest for Python 3.11, does not import with kauldron 1.4, nor kauldron 1.3
        # with jax 0.10.2; kauldron 1.3 cannot call typeguard 4.5, and needs tensorboard unsaid.
        "kauldron<1.4",
        "tensorboard>=2.18",
        "typeguard<4.5",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        # passk_jax.plan: the compiler for TPUs without one, the version that this jax wants.
        "tpu-plan": ["libtpu==0.0.41.*"],
        # CUDA 12 rather than 13: it runs on the older drivers too, and newer drivers accept it.
        "gpu": ["jax[cuda12]"],
        # passk_jax.integrations.tunix
        "tunix": ["google-tunix>=0.1.7"],
        # passk_jax.tasks.math_task, mbpp and humaneval
        "tasks": [
            "math-verify[antlr4_13_2]>=0.8",
            "pebble>=5.1",
            "pyseccomp>=0.1.2; sys_platform == 'linux'",
        ],
        # passk_jax.tasks.puzzles. Exactly this version: another may draw other problems. Some of
        # what it needs is built from source, so it is in no other extra; `make setup-puzzles`.
        "puzzles": ["reasoning-gym==0.1.25"],
        # For the tests alone: the models of transformers, with which logits and files are compared.
        # This version's build for CPUs is 200 MB; `make setup-parity`.
        "parity": ["torch==2.13.0"],
        "dev": [
            "google-tunix>=0.1.7",
            "cryptography>=43",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "pytest>=9.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "safetensors>=0.5",
            "transformers>=4.57",
            "ruff>=0.15",
        ],
    },
)
