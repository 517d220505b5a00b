"""Flags of the commands that take a config: `--config=FILE` and `--config.KEY=VALUE`."""

import re
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import ConfigDict, FieldReference

_OVERRIDE = re.compile(r"--?config\.([\w.]+)=(.*)", re.DOTALL)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line, for `app.run(flags_parser=...)`; what is wrong is one clear line.

    `--config.KEY=None` turns off any key that may be None, whatever its type, which the parsers of
    ml_collections do for few types only.
    """
    matches = [(arg, _OVERRIDE.fullmatch(arg)) for arg in argv]
    last = dict(match.groups() for _, match in matches if match)
    rest = [arg for arg, match in matches if not match or match[2] != "None"]
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
        print(
            f"error: {', '.join(given) or text}: there is no config key {key!r}. {hint} All keys "
            "are in configs/default.py",
            file=sys.stderr,
        )
        sys.exit(2)
    return positional


def _turn_off(config: ConfigDict, key: str) -> None:
    *place, name = key.split(".")
    for part in place:
        config = config[part]
    fields = dict(config.items(preserve_field_references=True))
    may_be_none = isinstance(fields[name], FieldReference) or place == ["task", "options"]
    if not may_be_none:
        print(f"error: --config.{key}=None: this key is never None", file=sys.stderr)
        sys.exit(2)
    config[name] = None
