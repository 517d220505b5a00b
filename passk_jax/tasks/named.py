"""What a config names: a user's own class or function, "package.module:name"."""

import importlib

from passk_jax.errors import ConfigError, did_you_mean


def imported(place: str, wanted: str) -> object:
    """Returns what "package.module:name" names.

    Python looks for the module in the folder in which the command was started, and in its path.

    Args:
      place: The module's name, a colon, and the name inside the module.
      wanted: What it should be, for error messages.

    Raises:
      ConfigError: There is no such module, or it has no such name. An error inside the module is
        the user's to see, and keeps its traceback.
    """
    module, _, name = place.partition(":")
    try:
        found = importlib.import_module(module)
    except (ModuleNotFoundError, ValueError) as error:
        if module and not f"{module}.".startswith(f"{getattr(error, 'name', None)}."):
            raise
        raise ConfigError(
            f"{place!r}: there is no module {module!r} in the current folder or in Python's path; "
            f"{wanted} is wanted, as module:name"
        ) from None
    if not hasattr(found, name):
        raise ConfigError(
            f"{place!r}: {found.__file__} has no {name!r}{did_you_mean(name, vars(found))}"
        )
    return getattr(found, name)
