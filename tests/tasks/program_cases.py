"""Completions with the verdict that a careful person gives: a program, and what is around it.

The problems: `FOUR`, after MBPP, asks for `f(x)` that is four times x; `BELOW`, after HumanEval,
gives the beginning of a function to go on with. Each case is (name, problem, completion, right).
"""

# ruff: noqa: E501  (a case a line)
from passk_jax.tasks import coding

FOUR = coding.Tests(("assert f(10) == 40", "assert f(3) == 12"), ("f",))
PAIR = coding.Tests(("assert depth(Node(Node(None))) == 2",), ("Node", "depth"))
STUB = '''from typing import List


def twice(x):
    """A helper."""
    return 2 * x


def below(numbers: List[int], limit: int) -> bool:
    """Whether all numbers are below the limit.

    >>> below([1, 2], 3)
    True
    """
'''
BELOW = coding.Tests(
    (
        "def check(g):\n    assert g([1, 2], 3) is True\n    assert g([4], 3) is False\ncheck(below)",
    ),
    ("below",),
    preamble=STUB[: STUB.rindex("def ")],
    stub=STUB,
)
F = "def f(x):\n    return 4 * x\n"
WRONG = "def f(x):\n    return 5 * x\n"
BODY = "    return all(n < limit for n in numbers)\n"
WHOLE = "def below(numbers, limit):\n" + BODY
NODE = "class Node:\n    def __init__(self, left):\n        self.left = left\n"
DEPTH = "def depth(n):\n    return 0 if n is None else 1 + depth(n.left)\n"


def block(source, fence="```", language="python"):
    return f"{fence}{language}\n{source}{fence}\n"


def indented(text, by="    "):
    return "".join(by + line for line in text.splitlines(keepends=True))


_FENCES = [
    ("a block", block(F), True),
    ("two blocks, the last is right", block(WRONG) + "No, rather:\n" + block(F), True),
    ("two blocks, the last is wrong", block(F) + "Or better:\n" + block(WRONG), False),
    ("usage behind it", block(F) + "Use it so:\n" + block("print(f(2))\n"), True),
    ("usage that fails behind it", block(F) + block("f(1, 2)\n"), True),
    ("its output behind it", block(F) + "Output:\n" + block("8\n", language="text"), True),
    ("a shell block behind it", block(F) + block("python f.py\n", language="bash"), True),
    ("a shell block before it", block("pip install numpy\n", language="sh") + block(F), True),
    ("a broken block behind it", block(F) + block("def f(x:\n    return"), True),
    ("a block that is never closed", "So:\n```python\n" + F, True),
    ("cut in a second block", block(F) + "Tests:\n```python\nassert f(2) ==", True),
    ("a stray fence behind it", F + "```\n", True),
    ("a stray fence before it", "```\n\nThe code is\n\n" + F, True),
    ("a fence with spaces", "   ```python   \n" + F + "   ```  \n", True),
    ("a block in a list", "1. The code:\n\n" + indented(block(F), "   ") + "\n2. Done.\n", True),
    ("a block at a bullet", "- " + indented(block(F), "  ").lstrip() + "\n", True),
    ("a block indented by tabs", indented(block(F), "\t"), True),
    ("a tilde fence", block(F, "~~~"), True),
    ("four backticks", block(F, "````"), True),
    ("five, with three inside", block('def f(x):\n    """\n    ```\n    """\n    return 4 * x\n', "`````"), True),
    ("backticks inside tildes", block('D = """\n```\n"""\n' + F, "~~~"), True),
    ("the language is Python3", block(F, language="Python3"), True),
    ("an info string", block(F, language='python title="f.py" linenums=1'), True),
    ("curly language", block(F, language="{python}"), True),
    ("code on the fence's line", "```python def f(x):\n    return 4 * x\n```", True),
    ("all on one line", "```def f(x): return 4 * x```", True),
    ("a lambda on the fence's line", "```f = lambda x: 4 * x\n```", True),
    ("a fence behind the last line", "```python\ndef f(x):\n    return 4 * x```", True),
    ("Windows' ends of lines", block(F).replace("\n", "\r\n"), True),
    ("an empty block behind it", block(F) + block(""), True),
    ("imports in a block of their own", block("import math\n") + block("def f(x):\n    return math.floor(4 * x)\n"), True),
    ("imports, then two blocks", block("from math import floor as g\n") + "a\n" + block("def f(x):\n    return g(4 * x)\n") + block("f(3)\n"), True),
    ("a helper in a block of its own", block("def g(x):\n    return 2 * x\n") + "and\n" + block("def f(x):\n    return g(g(x))\n"), True),
    ("a helper that is missing", block("def f(x):\n    return g(g(x))\n"), False),
    ("the future comes second", block("import math\n") + block("from __future__ import annotations\n" + F), True),
    ("a block of another name behind it", block(F) + block("def g(x):\n    return f(x)\n"), True),
    ("only another name", block("def g(x):\n    return 4 * x\n"), False),
    ("a method", block("class A:\n    def f(self, x):\n        return 4 * x\n"), False),
    ("an imported name", block("from functools import partial\nfrom operator import mul\nf = partial(mul, 4)\n"), True),
    ("defined where it can be", block("try:\n    import nothing_such\nexcept ImportError:\n    def f(x):\n        return 4 * x\n"), True),
    ("async", block("async def f(x):\n    return 4 * x\n"), False),
    ("own asserts that fail", block(F + "assert f(1) == 5\n"), False),
    ("a main block that reads", block(F + "if __name__ == '__main__':\n    print(f(int(input())))\n"), True),
    ("thoughts, then the program", "<think>\n" + block(WRONG) + "</think>\n" + block(F), True),
    ("thoughts with the right program, then a wrong one", "<think>" + block(F) + "</think>" + block(WRONG), False),
    ("nothing but thoughts", "<think>" + block(F) + "</think> I do not know.", False),
]  # fmt: skip
_PROSE = [
    ("the bare program", F, True),
    ("prose around it", "Here is the function.\n\n" + F + "\nIt multiplies by four.\n", True),
    ("prose that looks like Python", "Sure\n\nNote: this is short.\nfrom here on:\n\n" + F + "\nDone\n", True),
    ("a heading and a list", "### Solution\n\n" + F + "\n### Why\n1. It is short.\n2. It works.\n", True),
    ("prose between two functions", "def g(x):\n    return 2 * x\n\nThen we use it:\n\ndef f(x):\n    return g(g(x))\n", True),
    ("an import in prose", "We need\n\nimport math\n\nand then\n\ndef f(x):\n    return math.floor(4 * x)\n", True),
    ("a constant behind it", "def f(x):\n    return FOUR * x\n\nFOUR = 4\nprint(f(2)", True),
    ("usage behind it that reads", F + "\nn = int(input())\nprint(f(n))\n", True),
    ("asserts behind it that fail", F + "\nassert f(1) == 5\n", True),
    ("cut in the next function", F + "\ndef g(x):\n    return (x +", True),
    ("cut in a text", F + '\ndef g(x):\n    """Returns', True),
    ("cut in itself", "def f(x):\n    y = 4 * x\n    return (y", False),
    ("the next function is wrong Python", F + "\ndef g(x) return x\n", True),
    ("a docstring at the margin", 'def f(x):\n    """Multiplies\nby four.\n    """\n    return 4 * x\n\nIt works.\n', True),
    ("a list over several lines", "T = [\n0, 4,\n]\ndef f(x):\n    return T[1] * x\n\nThat is all.\n", True),
    ("a decorator", "The code:\n@(lambda g: lambda x: 2 * g(x))\ndef f(x):\n    return 2 * x\nso.\n", True),
    ("a comment at the margin", "def f(x):\n# four times\n    return 4 * x\n", True),
    ("else at the margin", "if True:\n    f = lambda x: 4 * x\nelse:\n    f = None\nwell\n", True),
    ("indented code", "The code:\n\n" + indented(F) + "\nDone.\n", True),
    ("a mark at the end", F + "<|endoftext|>" + WRONG, True),
    ("another model's mark", F + "<|im_end|>\n<|im_start|>user\n", True),
    ("done on the last line", "[BEGIN]\n" + F.rstrip() + " [DONE]\n" + WRONG, True),
    ("a name that is done", "DONE = 0\n" + F + "S = [4]\ndef f(x):\n    return x * S[DONE]\n", True),
    ("a mark of files", F + "<|file_sep|>main.py\n" + WRONG, True),
    ("a turn's beginning", "<|im_start|>assistant\n" + F + "<|im_end|>\n" + WRONG, True),
    ("tags", "<pre><code>" + F + "</code></pre>", True),
    ("an answer's tags", "<answer>\n" + F + "</answer>", True),
    ("a quotation", "> ```python\n> def f(x):\n>     return 4 * x\n> ```\n", True),
    ("an interpreter's prompts", ">>> def f(x):\n...     return 4 * x\n...\n>>> f(2)\n8\n", True),
    ("verbatim", "\\begin{verbatim}\n" + F + "\\end{verbatim}\n", True),
    ("markers of sections", "[PYTHON]\n" + F + "[/PYTHON]\n[TESTS]\nassert f(1) == 5\n[/TESTS]\n", True),
    ("begin and done", "[BEGIN]\n" + F + "[DONE]\n" + WRONG, True),
    ("a mark in a text", 'def f(x):\n    return 4 * x if "</s>" else 0\n', True),
    ("a byte-order mark", "\ufeff" + F, True),
    ("no program", "I cannot do that.", False),
    ("nothing", "", False),
    ("spaces that are none", "def f(x):\n\u00a0\u00a0return 4 * x\n", False),
    ("Python 2", "def f(x):\n    print 'x'\n    return 4 * x\n", False),
    ("JavaScript", "function f(x) { return 4 * x; }", False),
    ("the value alone", "40", False),
]  # fmt: skip
_GOES_ON = [
    ("the body", BODY, True),
    ("the body and a function that is cut", BODY + '\n\ndef other(a: int) -> int:\n    """ Return the', True),
    ("the body and a test that is cut", BODY + "\n\ndef test():\n    assert below([1.0", True),
    ("the body and prose", BODY + "\n\nThis function works by comparing.\n", True),
    ("the body and a main block", BODY + "\n\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod()\n", True),
    ("the body and a call that fails", BODY + "\nprint(below())\n", True),
    ("the body and a stray fence", BODY + "```\n\nExplanation: it compares.\n", True),
    ("the body and the same function again", BODY + "\ndef below(numbers, limit):\n    return None\n", True),
    ("a wrong body and the right function", "    return None\n\n" + WHOLE, False),
    ("the body in a block", block(BODY), True),
    ("the body in a block, at the margin", block(BODY[4:]), True),
    ("the body without its first spaces", "ok = True\n    for n in numbers:\n        ok = ok and n < limit\n    return ok\n", True),
    ("a helper behind the body", "    return all(low(n, limit) for n in numbers)\n\ndef low(a, b):\n    return a < b\n\nprint(", True),
    ("an inner function of this name", "    def below(n):\n        return n < limit\n    return all(map(below, numbers))\n", True),
    ("the prompt's helper is used", "    return all(twice(n) < 2 * limit for n in numbers)\n", True),
    ("the whole function", WHOLE, True),
    ("the whole function in a block", "Sure:\n" + block(WHOLE) + block("below([1], 2)\n"), True),
    ("the prompt again", STUB + BODY, True),
    ("the prompt again, in a block", block(STUB + BODY), True),
    ("a helper of the prompt in a whole function", block("def below(numbers: List[int], limit):\n    return all(twice(n) < twice(limit) for n in numbers)\n"), True),
    ("prose, then the body", "Here is the body:\n\n" + BODY, True),
    ("prose, then the whole function, indented", "So:\n\n" + indented(WHOLE) + "\nDone.\n", True),
    ("an inner function of this name, in a block", block("    def below(n):\n        return n < limit\n    return all(map(below, numbers))\n"), True),
    ("a decorator that is cut", BODY + "\n\n@pytest.mark.parametrize('a', [", True),
    ("a class that is cut", BODY + "\n\nclass Foo(object):\n    def __init__(self", True),
    ("a text that is cut", BODY + '\n\n"""\nThis is', True),
    ("tabs", "\treturn all(n < limit for n in numbers)\n", True),
    ("a pass is no body", "    pass\n", False),
    ("a comment is no body", "    # to do\n", False),
    ("prose is no body", "I would compare each number with the limit.", False),
    ("nothing is no body", "", False),
    ("a mark behind the body", BODY + "<|endoftext|>", True),
]  # fmt: skip
_PAIRS = [
    ("a class and a function, two blocks", block(NODE) + "and\n" + block(DEPTH), True),
    ("a class and a function, prose between", NODE + "\nNow the depth:\n\n" + DEPTH, True),
    ("the function alone", block(DEPTH), False),
]
CASES = [
    *((f"fences: {name}", FOUR, *rest) for name, *rest in _FENCES),
    *((f"prose: {name}", FOUR, *rest) for name, *rest in _PROSE),
    *((f"goes on: {name}", BELOW, *rest) for name, *rest in _GOES_ON),
    *((f"two names: {name}", PAIR, *rest) for name, *rest in _PAIRS),
]
