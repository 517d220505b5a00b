"""Flags of the commands that take a config: `--config=FILE or NAME` and `--config.KEY=VALUE`."""

import pathlib
import re
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import ConfigDict, FieldReference

_CONFIGS = pathlib.Path(__file__).with_name("configs")
_OVERRIDE = re.compile(r"--?config\.([\w.]+)=(.*)", re.DOTALL)
# The places where the shipped configs are in a checkout; elsewhere such a path is just a name.
_SHIPPED = re.compile(r"((passk_jax/)?configs/)?(\w+)(\.py)?")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line, for `app.run(flags_parser=...)`; what is wrong is one clear line.

    `--config` is a file, or the name of a config that comes with the package.
    `--config.KEY=None` turns off any key that may be None, whatever its type, which the parsers of
    ml_collections do for few types only.
    """
    matches = [(arg, _OVERRIDE.fullmatch(arg)) for arg in argv]
    last = dict(match.groups() for _, match in matches if match)
    rest = [arg for arg, match in matches if not match or match[2] != "None"]
    for i, (before, arg) in enumerate(zip(["", *rest], rest, strict=False)):
        flag, equals, value = arg.partition("=")
        if equals and flag in ("-config", "--config"):
            rest[i] = f"{flag}={_config_file(value)}"
        elif before in ("-config", "--config"):
            rest[i] = _config_file(arg)
    try:
        positional = app.parse_flags_with_usage(rest)
        for key, value in last.items():
            if value == "None":
                _turn_off(flags.FLAGS["config"].value, key)
    except (KeyError, AttributeError) as error:
        text = str(error.args[0])
        key = text.split("'")[1] if text.count("'") > 1 else text
        given = [arg for arg in argv if arg.startswith("--config.") and key in arg]
        hint = text.partition("\n")[2]
        _stop(
            f"{', '.join(given) or text}: there is no config key {key!r}. {hint} All keys are in "
            "configs/default.py"
        )
    return positional


def _config_file(value: str) -> str:
    """Returns the file that `--config` names, with the `:string` after it that get_config takes."""
    path, *colon = re.split("(?=:)", value, maxsplit=1)
    if not pathlib.Path(path).is_file():
        shipped = _SHIPPED.fullmatch(path)
        file = _CONFIGS / f"{shipped[3] if shipped else ''}.py"
        if not file.is_file():
            names = ", ".join(sorted(file.stem for file in _CONFIGS.glob("*.py")))
            _stop(f"--config={value}: there is no such file, nor a config of this name: {names}")
        path = str(file)
    return "".join([path, *colon])


def _turn_off(config: ConfigDict, key: str) -> None:
    *place, name = key.split(".")
    for part in place:
        config = config[part]
    fields = dict(config.items(preserve_field_references=True))
    may_be_none = isinstance(fields[name], FieldReference) or place == ["task", "options"]
    if not may_be_none:
        _stop(f"--config.{key}=None: this key is never None")
    config[name] = None


def _stop(problem: str) -> None:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)
