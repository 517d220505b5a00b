"""What all commands share: flags, errors in one line, and the exit status.

Only absl is imported before the flags are read, so that `--help` and a mistyped flag cost nothing.
"""

import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import config_flags

from passk_jax.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    Stopped,
    WorkdirError,
    printable,
    writing,
)
from passk_jax.run import overrides

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
_SAMPLING = ("max_response_tokens", "top_k", "top_p")
# The paths of the shipped configs in a checkout. Elsewhere such a path is a name.
_SHIPPED = re.compile(r"((passk_jax/)?configs/)?(\w+)(\.py)?")


def define_workdir(*, required: bool = True) -> None:
    """Defines `--workdir`, the folder of a run."""
    flags.DEFINE_string("workdir", None, "The run's folder.", required=required)


def define_checkpoint() -> None:
    """Defines what a command reads of a folder, which may be a stranger's."""
    flags.DEFINE_string("checkpoint", "latest", "latest, best (config.keep_best), or a step.")
    flags.DEFINE_bool(
        "trust_config", False, "Execute what the folder's config names: unsafe_execution, modules."
    )


def define_distributed() -> None:
    """Defines the flags of a command that can run on many hosts."""
    flags.DEFINE_bool("distributed", False, "This is one of several processes, on as many hosts.")
    flags.DEFINE_string("coordinator_address", None, "Host and port of process 0; not on a TPU.")
    flags.DEFINE_integer("num_processes", None, "The number of processes; not on a TPU.")
    flags.DEFINE_integer("process_id", None, "This process's number, from 0; not on a TPU.")


def define_sampling(split: str) -> None:
    """Defines the flags of a command that samples from a policy and scores."""
    define_workdir(required=False)
    define_config("arithmetic; with --config.init_from, instead of a run", required=False)
    flags.DEFINE_string("split", split, "Which problems: train, validation or test.")
    flags.DEFINE_integer("n", 16, "The number of samples of each problem.")
    flags.DEFINE_integer("problems", None, "Only the first so many problems.")
    flags.DEFINE_integer("seed", 0, "The seed of the samples, and of the bootstrap.")
    flags.DEFINE_list("mesh", None, "Sizes of data, fsdp, model, such as 1,1,-1, if not the run's.")
    flags.DEFINE_integer("max_response_tokens", None, "If not as config.sampling says, as for:")
    flags.DEFINE_integer("top_k", None, "Sample from the k most likely tokens.")
    flags.DEFINE_float("top_p", None, "Nucleus sampling.")
    define_checkpoint()
    define_distributed()


def sampling_arguments(**own: Any) -> dict[str, Any]:
    """Returns what `run.evaluation` is asked: `define_sampling`'s flags and the command's own.

    Raises:
      ConfigError: A value is not allowed, or the hosts were given different flags.
    """
    from passk_jax.run import workdir

    given = flags.FLAGS
    arguments = {
        "split": given.split,
        "num_samples": given.n,
        "num_problems": given.problems,
        "seed": given.seed,
        "mesh": numbers("mesh", int) if given.mesh else None,
        "trust": given.trust_config,
        "checkpoint": given.checkpoint,
        "sampling": {name: given[name].value for name in _SAMPLING},
        **own,
    }
    workdir.check_same({"arguments": arguments})
    return arguments | {"config": given.config}


def run_folder() -> Any:
    """Returns `--workdir` as a path, once it is known that it can be reached; `None` if not given.

    Raises:
      ConfigError: It is in a bucket that cannot be read.
    """
    from etils import epath

    from passk_jax import processes
    from passk_jax.run import workdir

    if flags.FLAGS.workdir is None:
        return None
    directory = epath.Path(flags.FLAGS.workdir)
    processes.together(lambda: workdir.check_reachable(directory), (ConfigError,))
    return directory


def config_arguments() -> list[str]:
    """Returns what the command line says of the config, as arguments for another command."""
    words, pairs = overrides.split(sys.argv[1:])
    named = [word for word in _joined(words) if word.startswith("--config=")]
    return [named[-1], *(f"--config.{key}={value}" for key, value in pairs)]


def numbers(name: str, kind: type) -> list:
    """Returns a flag that is a list of numbers.

    Raises:
      ConfigError: One of them is no such number.
    """
    value = flags.FLAGS[name].value
    try:
        return [kind(each) for each in value]
    except ValueError as error:
        raise ConfigError(f"--{name} = {','.join(value)}: numbers are allowed") from error


def write_json(file: str, content: Any) -> None:
    """Writes a file that the user asked for.

    Raises:
      WorkdirError: It cannot be written.
    """
    with writing():
        pathlib.Path(file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_lines(file: str, rows: Sequence[Any]) -> None:
    """Writes JSON, one line for each row; see `write_json`."""
    with writing():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        pathlib.Path(file).write_text("".join(lines), encoding="utf-8")


def pass_curve(file: str | None) -> Callable | None:
    """Returns what draws `--plot`, before anything expensive; `None` if it is not given.

    Raises:
      ConfigError: The library is not installed, or the file has another ending.
    """
    if file is None:
        return None
    if pathlib.Path(file).suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--plot = {file}: a file.png, .svg or .pdf is wanted")
    try:
        from passk_jax.tracking import pass_curve
    except ModuleNotFoundError as error:
        need = f"--plot needs {error.name}: pip install 'passk_jax[report]'"
        raise ConfigError(need) from error
    return pass_curve.write


def main(command: Callable[[], int | None]) -> None:
    """Parses the flags, runs a command, and exits.

    An error that a check raised is one line on stderr: status 2 for what the user asked, 1 for a
    checkpoint or a file, 128 + the signal's number where a signal stopped a run. Any other error
    is a bug, the user's or ours, and keeps its traceback.
    """

    def run(argv: Sequence[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        distributed = "distributed" in flags.FLAGS and flags.FLAGS.distributed
        if not distributed:  # what JAX says of a lost host must be seen
            # Hides XLA's wrong warning that compiled programs which were kept are another
            # machine's: two lines of 2,000 characters for each. It is read when JAX is imported.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from passk_jax import processes
        from passk_jax.learner.checkpoint import quiet_logs

        quiet_logs()
        if distributed:
            return processes.run(lambda: status(command))
        return status(command)

    for flag in flags.FLAGS.flags_by_module_dict().get(__name__, ()):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # for --help
    app.run(run, flags_parser=parse)


def status(command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status; see `main`."""
    try:
        return command() or 0
    except (ConfigError, CheckpointError, DivergedError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except WorkdirError as error:
        print(
            f"error: {printable(str(error))}. Mend it and run the same command again",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        number = stopped.args[0]
        print(
            f"stopped by {number.name}: a checkpoint is saved; the same command goes on from it",
            file=sys.stderr,
        )
        return 128 + number


def define_config(example: str, *, required: bool = True) -> None:
    """Defines `--config`, which the command line must give unless it is not `required`."""
    config_flags.DEFINE_config_file(
        "config", None, f"A file or a name, e.g. {example}.", sys_argv=[]
    )
    if required:
        flags.mark_flag_as_required("config")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line, for `app.run(flags_parser=...)`; what is wrong is one clear line.

    `--config` is a file, or the name of a config that comes with the package; `run.overrides`
    explains `--config.KEY=VALUE`.
    """
    try:
        words, pairs = overrides.split(argv)
        rest = [
            f"--config={_config_file(word.partition('=')[2])}"
            if word.startswith("--config=")
            else word
            for word in _joined(words)
        ]
        if {"--help", "-help", "-h"} & set(rest):
            _print_help(rest)
        positional = flags.FLAGS(rest)
        for arg in positional[1:]:
            hint = f"; did you mean --{arg}?" if arg.startswith("config.") else ""
            raise ConfigError(f"{arg} is no flag{hint}")
        if pairs:
            if "config" not in flags.FLAGS:
                raise ConfigError(f"--config.{pairs[0][0]}: this command takes no config")
            if flags.FLAGS.config is None:
                raise ConfigError(f"--config.{pairs[0][0]} needs --config")
            overrides.apply(flags.FLAGS.config, pairs)
    except (ConfigError, flags.Error) as error:
        _refuse(error)
    return positional


def _refuse(error: Exception) -> NoReturn:
    """Says in one line what is wrong with a command line, and exits with status 2."""
    words = str(error).partition("\n")[0]
    if isinstance(error, flags.UnrecognizedFlagError) and "." in error.flagname:
        words = f"--{error.flagname} is no flag; did you mean --config.{error.flagname}?"
    elif missing := re.fullmatch(r"flag --(\w+)=None: Flag .* must have a value.*", words):
        words = f"--{missing[1]} is missing; --help explains it"
    print("error:", words, file=sys.stderr)
    sys.exit(2)


def _print_help(arguments: Sequence[str]) -> None:
    """Prints what a command does, its flags, and the keys of its config; then exits."""
    print(sys.modules["__main__"].__doc__, flags.FLAGS.main_module_help(), sep="\n")
    if "config" in flags.FLAGS:
        files = [arg.partition("=")[2] for arg in arguments if arg.startswith("--config=")]
        file = (files or [_config_file("default")])[-1]
        print(f"\nKeys of the config, with their values in {pathlib.Path(file).stem}:")
        print(overrides.listing(flags.FLAGS["config"].parser.parse(file)))
    sys.exit(0)


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Yields the words of a command line, but for `--config X`, which becomes `--config=X`."""
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        named = flag in ("-config", "--config")
        yield f"--config={value if equals else next(following, '')}" if named else word


def _config_file(value: str) -> str:
    """Returns the file that `--config` names, and the `:string` after it that get_config takes."""
    path, *colon = re.split("(?=:)", value, maxsplit=1)
    if not pathlib.Path(path).is_file():
        shipped = _SHIPPED.fullmatch(path)
        file = _CONFIGS / f"{shipped[3] if shipped else ''}.py"
        if not file.is_file():
            names = ", ".join(sorted(file.stem for file in _CONFIGS.glob("*.py")))
            raise ConfigError(
                f"--config={value}: there is no such file, nor a config of this name: {names}"
            )
        path = str(file)
    return "".join([path, *colon])
