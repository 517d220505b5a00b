"""Finds the program in a completion: in a fence, between prose, or as a function that goes on.

A model writes its program in a block, or in several, or in none, and adds examples, explanations,
the next problem, or half of it. What counts is the last thing that Python can read and that
defines what the tests call.
"""

import ast
import builtins
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence

# What ends a turn, and what MBPP's prompt of the paper ends a program with.
_END = re.compile(
    r"<\|(?!im_start|start)[a-z_]+\|>|<end_of_turn>|<eos>|</s>|^\[DONE\]"
    r"|(?<=[^=(,:\s])[ \t]+\[DONE\][ \t]*$",
    re.M,
)
_FENCE = re.compile(r"^([ \t]*)(?:(?:[-*+>]|\d+[.)])[ \t]+)?(`{3,}|~{3,})[^\n`~]*$", re.M)
# Code on the line of a fence, before or behind it, and the language that may stand between.
_OPENS_BEFORE_CODE = re.compile(
    r"^([ \t]*)(`{3,})[ \t]*(?:(?:python3?|py)[ \t]+)?(?=(?:def|class|from|import|async|@)\b)"
    r"|^([ \t]*)(`{3,})[ \t]*(?=\w+ *= *lambda\b)",
    re.M | re.I,
)
_CLOSES_BEHIND_CODE = re.compile(r"(?<=[^\s`])[ \t]*(`{3,})[ \t]*$", re.M)
_TAGS = re.compile(r"</?(?:pre|code|answer)\b[^>\n]*>", re.I)
_PROMPTS = re.compile(r"^(?:>>> ?|\.\.\. ?|> ?)", re.M)  # of an interpreter, of a quotation
# A line at the margin that goes on with the statement before it, or is a comment.
_GOES_ON = re.compile(r"(?:else|elif|except|finally)\b|[)\]}#]")
_INDENTED_CODE = re.compile(r"^([ \t]+)(?:def|class|import|from|@)\b", re.M)
_INDENTED = re.compile(r"^[ \t]+\S", re.M)
_UNFINISHED = ("triple-quoted", "was never closed", "unexpected EOF", "expected an indented block")
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.M)
_MAX_READ_CHARS = 1_000_000
_MAX_FENCES = 16


def extract_program(
    completion: str, names: Sequence[str] = (), *, preamble: str = "", stub: str = ""
) -> str:
    r"""Returns the program of a completion.

    It is the last fenced block that is Python and defines all the `names`, or else some of them,
    with the blocks before it that only import or that define what it uses. If no block does, it is
    the lines that do, without prose and without what follows that the function does not use. Where
    nothing defines a name: the last block, or else the whole completion. Text counts up to the
    first token that ends a turn, and behind "</think>".

    Args:
      completion: Any text.
      names: What the tests call.
      preamble: Source that is put before a program that defines the names.
      stub: The beginning of a function, named by the first of `names`. A completion that does not
        define it is its body, up to the function's end.

    >>> extract_program("Here:\n```python\ndef f():\n    return 1\n```\nDone.")
    'def f():\n    return 1\n'
    >>> extract_program("It is\ndef f():\n    return 1\nas you see.", ["f"])
    'def f():\n    return 1'
    >>> extract_program("    return 1\n\nprint(f(", ["f"], stub="def f():\n")
    'def f():\n    return 1\n'
    """
    text = completion.removeprefix("\ufeff").replace("\r\n", "\n").rpartition("</think>")[2]
    cut = _END.split(text, maxsplit=1)[0]
    read = _Reader(names)
    if names:
        versions = (cut, _fences_on_own_lines(cut), _PROMPTS.sub("", cut), text)
        for version in dict.fromkeys(versions):
            found = _find(version, read, preamble, stub)
            if found is not None:
                return _ordered(found)
    last = ([cut] + [content for _, content in _blocks(cut)])[-1]
    return _ordered(stub + last if stub else preamble + last)


class _Reader:
    """Reads source, until it has read so much that the text must have been made to cost time."""

    def __init__(self, names: Sequence[str]):
        self.names = set(names)
        self._left = _MAX_READ_CHARS
        self.unfinished = False

    def __call__(self, source: str) -> list[ast.stmt] | None:
        """Returns the statements, or None: it is not Python, and perhaps `unfinished`."""
        self._left -= len(source) + 50
        self.unfinished = False
        if self._left < 0:
            return None
        try:
            return parse(source).body
        except SyntaxError as error:
            self.unfinished = any(words in str(error.msg) for words in _UNFINISHED)
        except (ValueError, RecursionError, MemoryError):
            pass
        return None

    def enough(self, nodes: Sequence[ast.stmt] | None, every: bool) -> bool:
        """Whether statements define every name, or any."""
        bound = set(itertools.chain.from_iterable(map(_bound, nodes or ())))
        return self.names <= bound if every else not self.names.isdisjoint(bound)


def parse(source: str) -> ast.Module:
    """Returns the tree of a source. Raises what `ast.parse` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the program's warnings, such as invalid escapes
        return ast.parse(source)


def _find(text: str, read: _Reader, preamble: str, stub: str) -> str | None:
    body = lambda source: _lines(stub + source, read, True, first=True)  # noqa: E731
    lines = text.lstrip("\n")
    if stub and lines[:1].isspace() and not _FENCE.match(lines) and (found := body(text)):
        return found
    for every in (True, False):
        for start, block in _contents(text):
            nodes = read(block) if any(name in block for name in read.names) else None
            if nodes is not None and read.enough(nodes, every):
                return preamble + _joined(text, start, block, read)
        for start, block in [*reversed(_blocks(text)), (0, _FENCE.sub("", text))]:
            if found := _lines(block, read, every):
                return preamble + _joined(text, start, found, read)
    if match := _INDENTED_CODE.search(text):
        lines = [line.removeprefix(match[1]) for line in text[match.start() :].split("\n")]
        source = "\n".join(lines)
        body_alone = re.search(r"^return\b", source, re.M)
        if not body_alone and (found := _lines(source, read, True)):
            return preamble + found
    if stub:
        behind_prose = text[match.start() :] if (match := _INDENTED.search(text)) else text
        for source in [*(content for _, content in reversed(_blocks(text))), text, behind_prose]:
            indented = textwrap.indent(textwrap.dedent(source), "    ")
            for tried in (source, "    " + source.lstrip(), indented):
                if found := body(tried):
                    return found
    return None


def _fences_on_own_lines(text: str) -> str:
    text = _TAGS.sub("\n", text)
    text = _OPENS_BEFORE_CODE.sub(lambda m: f"{m[1] or m[3] or ''}{m[2] or m[4]}\n", text)
    return _CLOSES_BEHIND_CODE.sub(r"\n\1", text)


def _content(text: str, fence: re.Match, end: int | None) -> str:
    """Returns what follows a fence, without the fence's own indentation."""
    content = text[fence.end() + 1 : end]
    indent = fence[1]
    return re.sub(f"^{indent}", "", content, flags=re.M) if indent else content


def _contents(text: str) -> Iterator[tuple[int, str]]:
    """Yields what may be a block: from each fence, the last ones first, to any later one."""
    fences = list(_FENCE.finditer(text))[-_MAX_FENCES:]
    for first in reversed(range(len(fences))):
        for last in [*fences[first + 1 :], None]:  # a docstring may hold fences
            content = _content(text, fences[first], last.start() if last else None)
            yield fences[first].start(), content


def _blocks(text: str) -> list[tuple[int, str]]:
    """Returns the start and the content of each block, as Markdown pairs fences."""
    blocks, opened = [], None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[2].startswith(opened[2]):
            blocks.append((opened.start(), _content(text, opened, fence.start())))
            opened = None
    if opened is not None and text[opened.end() + 1 :].strip():
        blocks.append((opened.start(), _content(text, opened, None)))
    return blocks


def _joined(text: str, start: int, program: str, read: _Reader) -> str:
    """Returns a program behind the blocks before it that only import, or define what it uses."""
    parts, used = [program], _free(read(program) or ())
    for place, content in reversed(_blocks(text)):
        earlier = read(content) if place + len(content) < start else None
        if not earlier:
            continue
        imports = all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in earlier)
        if imports or not used.isdisjoint(set().union(*map(_bound, earlier))):
            parts.insert(0, content if content.endswith("\n") else content + "\n")
            used |= _free(earlier)
    return "".join(parts)


def _lines(text: str, read: _Reader, every: bool, first: bool = False) -> str | None:
    """Returns the lines that define the names and what these use, or None.

    Statements behind them stay only if they define what is used. With `first`, a later definition
    of the same name is none: it is the next problem's, or a model's that does not stop.
    """
    chunks = [(source, nodes) for source, nodes in _statements(text, read) if not _prose(nodes)]
    names = [read.names & set().union(*map(_bound, nodes)) for _, nodes in chunks]
    places = [i for i, found in enumerate(names) if found]
    if not places or not read.enough([n for _, nodes in chunks for n in nodes], every):
        return None
    last = places[0] if first else places[-1]
    if first and not _has_body(chunks[last][1][-1]):
        return None
    kept = dict.fromkeys(range(last + 1))
    while True:
        nodes = [node for i in kept for node in chunks[i][1]]
        wanted = _free(nodes) - set(dir(builtins)) - set().union(*map(_bound, nodes))
        more = [
            i
            for i, (_, nodes) in enumerate(chunks)
            if i not in kept
            and not wanted.isdisjoint(set().union(*map(_bound, nodes)))
            and _defines(nodes)
        ]
        if not more:
            return "\n".join(chunks[i][0] for i in sorted(kept))
        kept |= dict.fromkeys(more)


def _statements(text: str, read: _Reader) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yields the top-level statements of a text that also holds prose, and their source."""
    chunks: list[list[str]] = []
    decorated = False
    for line in text.split("\n"):
        margin = bool(line) and not line[0].isspace() and not _GOES_ON.match(line)
        if not chunks or (margin and not decorated):
            chunks.append([])
        chunks[-1].append(line)
        decorated = line.startswith("@") or (decorated and not margin)
    start = 0
    while start < len(chunks):
        lines, nodes, end = [], None, start
        while nodes is None and end < len(chunks) and (end == start or read.unfinished):
            lines += chunks[end]
            end += 1
            nodes = read("\n".join(lines))
        if nodes is None:
            start += 1
            continue
        if nodes:
            yield "\n".join(lines), nodes
        start = end


def _prose(nodes: list[ast.stmt]) -> bool:
    """Whether statements are words that happen to be Python, or checks of what is yet to come."""
    (node, *others) = nodes
    if others or isinstance(node, ast.Assert):
        return not others
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Call, ast.JoinedStr))


def _defines(nodes: list[ast.stmt]) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return isinstance(nodes[0], (*kinds, ast.Assign, ast.AnnAssign, ast.If, ast.Try))


def _has_body(node: ast.stmt) -> bool:
    """Whether a definition is more than a function with a docstring."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return True
    return len(node.body) > (ast.get_docstring(node) is not None)


def _bound(node: ast.AST) -> set[str]:
    """Returns the names that a statement gives a value at its own level."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.alias):
        return {(node.asname or node.name).partition(".")[0]}
    if isinstance(node, (ast.Lambda, ast.comprehension)):
        return set()
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    return own.union(*map(_bound, ast.iter_child_nodes(node)))


def _free(nodes: Sequence[ast.stmt]) -> set[str]:
    """Returns the names that statements use: those of a function that it does not bind itself."""
    free: set[str] = set()
    for node in nodes:
        names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
        own = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        free |= {name.id for name in names if isinstance(name.ctx, ast.Load)} - own
    return free


def _ordered(source: str) -> str:
    """Returns a source whose `from __future__` lines come first, as Python wants them."""
    lines = _FUTURE.findall(source)
    if not lines or (len(lines) == 1 and source.startswith(lines[0])):
        return source
    return "".join(line.rstrip("\n") + "\n" for line in lines) + _FUTURE.sub("", source)
