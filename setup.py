"""The package passk_jax: what it needs, and the extras it can be installed with."""

import pathlib

import setuptools

README = pathlib.Path(__file__).parent / "README.md"

EXTRAS = {
    # passk_jax.report, and the report that a training run ends with.
    "report": ["jinja2>=3.1", "matplotlib>=3.9"],
    # config.tokenizer.name = "sentencepiece" or "huggingface", and the latter's chat templates.
    "tokenizers": ["jinja2>=3.1", "sentencepiece>=0.2", "tokenizers>=0.21"],
    # config.init_from = "hf://org/name".
    "hub": ["huggingface_hub>=0.34"],
    # The task qa: files at Hugging Face, and Parquet files.
    "data": ["huggingface_hub>=0.34", "pyarrow>=16"],
    # passk_jax.tasks.math_task, mbpp and humaneval.
    "tasks": [
        "math-verify[antlr4_13_2]>=0.8",
        "pyseccomp>=0.1.2; sys_platform == 'linux'",
    ],
    # passk_jax.tasks.seqio_tasks. On Python 3.13 this needs a C++ compiler, for editdistance.
    "seqio": ["seqio>=0.0.20", "tensorflow>=2.18"],
    # Folders in buckets, gs://...: tensorflow reads and writes them, google-cloud-storage appends.
    "gcs": ["google-auth>=2.30", "google-cloud-storage>=3", "tensorflow>=2.18"],
    # The gemma package, which reads what passk_jax.export writes and writes what it reads. Each
    # Python gets the newest gemma that runs on it. gemma 3.3 is the last for Python 3.11: it does
    # not import with kauldron 1.4, nor kauldron 1.3 with jax 0.10.2; kauldron 1.3 cannot call
    # typeguard 4.5, and imports tensorboard without declaring it.
    "gemma": [
        "gemma>=4.0.1; python_version >= '3.12'",
        "kauldron>=1.4; python_version >= '3.12'",
        "gemma>=3.3,<4; python_version < '3.12'",
        "kauldron>=1.3,<1.4; python_version < '3.12'",
        "jax<0.10.2; python_version < '3.12'",
        "tensorboard>=2.18; python_version < '3.12'",
        "typeguard<4.5; python_version < '3.12'",
    ],
    # passk_jax.integrations.tunix.
    "tunix": ["google-tunix>=0.1.7"],
    # config.writers = ("wandb",) and ("mlflow",), which sends to a server of MLflow.
    "wandb": ["wandb>=0.19"],
    "mlflow": ["mlflow-skinny>=2.20"],
}

# Extras that not every machine can install, or that are large. They are not in "all".
SPECIAL = {
    "tpu": ["jax[tpu]"],
    # passk_jax.plan compiles for TPUs without one, by the same compiler.
    "tpu-plan": ["jax[tpu]"],
    # CUDA 12 rather than 13: it runs on the older drivers too, and newer drivers accept it.
    "gpu": ["jax[cuda12]"],
    # config.writers = ("trackio",). It wants pillow<13, and the lock has pillow 13.
    "trackio": ["trackio>=0.27"],
    # passk_jax.tasks.puzzles. Exactly this version: another may draw other problems. Some of its
    # dependencies are built from source; `make setup-puzzles`.
    "puzzles": ["reasoning-gym==0.1.25"],
    # passk_jax.integrations.trl. It brings torch; `make setup-trl` takes the small one of `parity`.
    "trl": ["trl>=1.16"],
    # passk_jax.pretrained, which reads GGUF files; `make setup-pretrained`.
    "pretrained": ["gguf>=0.17", "tokenizers>=0.21"],
    # For the tests alone: the models of transformers, with which logits and files are compared.
    # This version's build for CPUs is 200 MB; `make setup-parity`.
    "parity": ["torch==2.13.0"],
}

DEV = {
    # `make docs`.
    "docs": [
        "mkdocs-material>=9.6",
        "mkdocstrings[python]>=0.29",
    ],
    # `make test`; `make setup` installs it with "all" and "docs".
    "dev": [
        "build>=1.2",
        "cryptography>=43",
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "pytest>=9.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.15",
        "safetensors>=0.5",
        "setuptools-scm>=10",
        "transformers>=4.57",
    ],
}

setuptools.setup(
    name="passk_jax",
    description="Training language models by reinforcement learning on pass@k, in JAX",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=setuptools.find_namespace_packages(include=["passk_jax", "passk_jax.*"]),
    package_data={"": ["*.html", "*.jinja", "*.js", "golden.json"]},
    # What the default job imports. Lower bounds; the exact versions that the tests run with are in
    # requirements.lock.
    install_requires=[
        "absl-py>=2.3.1",
        "chex>=0.1.91",
        "etils[epath]>=1.12",
        "flax>=0.12.8",
        "jax>=0.10.0",
        "ml-collections>=1.1.0",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12.0",
        "scipy>=1.14",
        "tensorboardX>=2.6.2",
        "tqdm>=4.66",
    ],
    extras_require={
        **EXTRAS,
        "all": sorted({need for needs in EXTRAS.values() for need in needs}),
        **SPECIAL,
        **DEV,
    },
)
