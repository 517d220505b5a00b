"""Config keys on the command line: which arguments they are, and what each text becomes."""

import pathlib

import pytest
from ml_collections import ConfigDict

import passk_jax
from configs import default
from passk_jax.errors import ConfigError
from passk_jax.run import overrides


def small():
    """A locked config with a key of every kind."""
    config = ConfigDict({
        "steps": 3, "rate": 0.5, "on": False, "off": True, "word": "a", "pair": ("a", "b"),
        "names": ["a"], "abcdefgx": 1,
        "task": {"name": "maze", "options": {"size": 4, "tags": ("a",)}, "reward_weights": {}},
        "warm_start": {"steps": 9, "task": {"options": {"size": 5}}},
    })  # fmt: skip
    for name, kind in (("limit", int), ("share", float), ("mode", str), ("any", object)):
        config[name] = default.optional(None, kind)
    config.warm_start.task.name = default.optional("maze", str)
    return config.lock()


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(
    ("line", "rest", "pairs"),
    [
        (["--config.a=b"], [], [("a", "b")]),
        (["-config.a_1.b=c=d"], [], [("a_1.b", "c=d")]),
        (["--config.a", "b"], [], [("a", "b")]),
        (["--config.a", "-1", "x"], ["x"], [("a", "-1")]),
        (["--config.a="], [], [("a", "")]),
        (["--config.a=one\ntwo"], [], [("a", "one\ntwo")]),
        (["--config.a=1", "x", "--config.a=2"], ["x"], [("a", "1"), ("a", "2")]),
        (["--config", "a", "--config=b"], ["--config", "a", "--config=b"], []),
        (["config.a=b", "---config.a=b"], ["config.a=b", "---config.a=b"], []),
        (["--config.a-b=c", "--config.=c"], ["--config.a-b=c", "--config.=c"], []),
    ],
)
def test_which_arguments_are_keys(line, rest, pairs):
    assert overrides.split(line) == (rest, pairs)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["x", "--config.a.b"], "--config.a.b has no value: write --config.a.b=VALUE"),
        (["--config.a", "--config.b=1"], "--config.a has no value: write --config.a=VALUE"),
        (["-config.a=--b"], "-config.a=--b has no value: write --config.a=VALUE"),
    ],
)
def test_a_key_without_a_value_is_named(line, said):
    with pytest.raises(ConfigError) as caught:
        overrides.split(line)
    assert str(caught.value) == said


DEEP = "-" * 100_000 + "1"  # too deep for Python's parser


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "7", 7),
        ("steps", "-2", -2),
        ("steps", "1e3", 1000),
        ("steps", "51.0", 51),
        ("rate", "2", 2.0),
        ("rate", "-1e-3", -0.001),
        ("on", "true", True),
        ("on", "True", True),
        ("on", "1", True),
        ("off", "false", False),
        ("off", "FALSE", False),
        ("off", "0", False),
        ("word", "1", "1"),
        ("word", "('b', 'c')", "('b', 'c')"),
        ("pair", "x,y", ("x", "y")),
        ("pair", "x", ("x",)),
        ("pair", "('x', 1)", ("x", 1)),
        ("pair", "'x'", ("x",)),
        ("pair", "'x,y'", ("x,y",)),
        ("pair", "[1, 2]", (1, 2)),
        ("names", "x,y", ["x", "y"]),
        ("names", "(1, 2)", [1, 2]),
        ("limit", "51.0", 51),
        ("share", "2", 2.0),
        ("mode", "1", "1"),
        ("any", "((0, 8), (5, 1))", ((0, 8), (5, 1))),
        ("any", "0.5", 0.5),
        ("any", "x, y", "x, y"),
        ("any", "3 +", "3 +"),
        ("any", "{[1]: 2}", "{[1]: 2}"),
        pytest.param("any", DEEP, DEEP, id="deep"),
        pytest.param("rate", "1" * 400, float("inf"), id="huge"),
        ("warm_start.steps", "4", 4),
        ("task.reward_weights.mine", "0.5", 0.5),
        ("task.options.size", "6", 6),
        ("task.options.size", "None", None),
        ("task.options.tags", "x,y", ("x", "y")),
        ("task.options.new", "x", "x"),
        ("task.options.new", "None", None),
        ("task.options.new.deep.key", "(1, 2)", (1, 2)),
        ("warm_start.task.options.new", "3", 3),
    ],
)
def test_a_text_becomes_a_value_of_its_key(key, text, value):
    config = small()
    overrides.apply(config, [(key, text)])
    found = value_of(config, key)
    assert found == value and type(found) is type(value)
    section = value_of(config, key.rpartition(".")[0]) if "." in key else config
    assert config.is_locked and section.is_locked


@pytest.mark.parametrize("key", ["limit", "share", "mode", "any", "warm_start.task.name"])
def test_a_key_that_may_be_none_is_turned_off(key):
    config = small()
    overrides.apply(config, [(key, "8"), (key, "None")])
    assert value_of(config, key) is None


TUPLE = "a tuple, such as \"('a', 'b')\""


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("steps", "2.5", "a whole number is allowed"),
        ("steps", "many", "a whole number is allowed"),
        ("steps", "inf", "a whole number is allowed"),
        ("steps", "none", "a whole number is allowed"),
        ("limit", "2.5", "a whole number or None is allowed"),
        ("task.options.size", "big", "a whole number or None is allowed"),
        ("rate", "fast", "a number is allowed"),
        ("share", "1,5", "a number or None is allowed"),
        ("on", "yes", "true or false is allowed"),
        ("off", "2", "true or false is allowed"),
        ("pair", "5", f"{TUPLE} is allowed"),
        ("task.options.tags", "5", f"{TUPLE} or None is allowed"),
        ("any", "(None)", f"{TUPLE} or None is allowed"),
        ("steps", "1e999", "a whole number is allowed"),
        ("word", "None", "this key is never None"),
        ("warm_start.steps", "None", "this key is never None"),
        ("task", "maze", "this is a section, with the keys name, options, reward_weights"),
        ("warm_start.task.options", "5", "this is a section, with the keys size"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_key_and_value(key, text, said):
    config = small()
    with pytest.raises(ConfigError) as caught:
        overrides.apply(config, [(key, text)])
    assert str(caught.value) == f"--config.{key}={text}: {said}"
    assert config == small()


def test_a_dict_whose_names_have_dots_is_one_line_too():
    with pytest.raises(ConfigError, match=r"^--config.task.options.new={'a.b': 2}: .* dots .*a\.b"):
        overrides.apply(small(), [("task.options.new", "{'a.b': 2}")])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("stepz", "steps"),
        ("taskk", "task"),
        ("task.optoins.size", "task.options.size"),
        ("warm_start.step", "warm_start.steps"),
        # These keys share too little as a whole, and their last part is a key of its own.
        ("nowhere.of.this.kind.steps", "steps"),
        ("abcdef.rate", "rate"),  # 2 * 6 / 19 of it is as in "abcdefgx"
        ("limxxx", "limit"),  # 2 * 3 / 11
        ("lixx", None),  # 2 * 2 / 9
        ("q", None),
        # Not every section takes any key, and a value is no section.
        ("task.q", "task"),
        ("q.q.q", None),
        ("task.options.", "task.options"),
        ("task.options..size", "task.options.size"),
        ("steps.q", "steps"),
        ("task.options.size.q", "task.options.size"),
    ],
)
def test_an_unknown_key_is_told_the_closest_one(key, meant):
    config = small()
    with pytest.raises(ConfigError) as caught:
        overrides.apply(config, [(key, "1")])
    hint = "" if meant is None else f"Did you mean --config.{meant}? "
    assert str(caught.value) == (
        f"--config.{key}: there is no such key. {hint}`python -m passk_jax.train --help` lists all"
    )
    assert config == small()


def test_a_section_that_a_config_lacks_is_not_made():
    config = small()
    with config.unlocked():
        del config.task.reward_weights
    with pytest.raises(ConfigError, match=r"config\.task\.reward_weights\.mine: there is no such"):
        overrides.apply(config, [("task.reward_weights.mine", "2")])


def test_the_last_of_two_values_counts():
    config = small()
    overrides.apply(config, [("steps", "5"), ("word", "b"), ("steps", "4")])
    assert (config.steps, config.word) == (4, "b")


@pytest.mark.parametrize(("task", "other"), [("task", "warm_start.task"), ("warm_start.task",) * 2])
@pytest.mark.parametrize("first", ["name", "options"])
def test_another_task_has_only_the_options_that_come_with_it(task, other, first):
    pairs = [(f"{task}.name", "tree"), (f"{task}.options.depth", "3")]
    config = small()
    overrides.apply(config, pairs if first == "name" else pairs[::-1])
    assert value_of(config, task).name == "tree"
    assert value_of(config, task).options.to_dict() == {"depth": 3}
    if other != task:
        assert value_of(config, other) == value_of(small(), other)
    assert value_of(config, task).options.is_locked


@pytest.mark.parametrize("task", ["task", "warm_start.task"])
def test_the_same_task_keeps_its_options(task):
    config = small()
    overrides.apply(config, [(f"{task}.name", "maze")])
    assert config == small()


DEFAULTS = '''"""# of no key"""

def split_over():
    axes = ConfigDict()
    axes.rows = 1  # of any section
    axes.long = 2  # {long}


def get_config():
    # It is said of the section's name alone.
    config = ConfigDict()
    config.z = 0  # beside: é
    # Above,

    # twice,
    config.b = 1  # and beside.
    other = 3
    config.part.b = 2
    config.part.z = 2  # of its own
    config.part = 4  # A section.
'''


def test_a_listing_is_in_the_order_of_the_defaults_and_says_what_they_say(tmp_path, monkeypatch):
    path = tmp_path / "default.py"
    fits, longer = "x" * 44 + " " + "y" * 45, "x" * 45 + " " + "y" * 45  # 90 and 91 letters
    path.write_text(DEFAULTS.format(long=f"{fits} {longer}"), encoding="utf-8")
    monkeypatch.setattr(overrides, "_DEFAULTS", path)
    config = ConfigDict({
        "b": "x", "z": 0, "a": None, "mine": {"rows": (1,), "new": 5, "long": 6},
        "part": {"b": 2.0, "z": 3},
    })  # fmt: skip
    assert overrides.listing(config).splitlines() == [
        "  --config.z=0",
        "      beside: é",
        "  --config.b='x'",
        "      Above, twice, and beside.",
        "  --config.part.b=2.0",
        "      Above, twice, and beside.",
        "  --config.part.z=3",
        "      of its own",
        "  --config.part",
        "      A section.",
        "  --config.a=None",
        "  --config.mine",
        "  --config.mine.long=6",
        f"      {fits}",
        f"      {'x' * 45}",
        f"      {'y' * 45}",
        "  --config.mine.new=5",
        "  --config.mine.rows=(1,)",
        "      of any section",
    ]


def test_what_is_said_of_a_key_is_read_from_the_package_s_defaults():
    """An installed package has no folder beside it, as a checkout has."""
    assert overrides._DEFAULTS.is_relative_to(pathlib.Path(passk_jax.__file__).parent)
    lines = overrides.listing(default.get_config()).splitlines()
    assert lines[0] == "  --config.seed=0"
    assert lines[2:4] == ["  --config.steps=200", "      training steps"]
