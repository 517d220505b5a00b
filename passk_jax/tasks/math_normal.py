r"""Writes an answer in normal form: the same mathematics in one spelling of LaTeX. Text only.

The spellings are tables: characters, commands, and rewrites. The rewrites are repeated until none
changes the text. Every pattern takes time linear in the text, or looks ahead a bounded number of
characters.
"""

import re

_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_CHARACTERS = str.maketrans(
    {
        **{code: " " for code in [*range(32), *range(127, 160), 0xA0, 0x2009, 0x202F, 0x3000]},
        **{code: None for code in (0x200B, 0x200C, 0x200D, 0xFEFF)},
        **{code: "\ufffd" for code in range(0xD800, 0xE000)},
        **_FULL_WIDTH,
        **dict.fromkeys("−–‐‑", "-"),
        **dict.fromkeys('`"“”', None),
        **{"~": r"\ ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/"},
        **{"π": r"\pi ", "θ": r"\theta ", "°": r"^\circ ", "∞": r"\infty ", "√": r"\sqrt "},
        **{"≤": r"\le ", "≥": r"\ge ", "±": r"\pm ", "∪": r"\cup ", "∈": r"\in ", "≈": r"\approx "},
        **{"²": "^{2}", "³": "^{3}", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
        **{"…": r"\ldots "},
    }
)

_FONTS = frozenset(
    "text mathrm mathbf mathit mathsf mathtt mathcal mathnormal textbf textit textrm textsf texttt "
    "textnormal textup emph mbox hbox boldsymbol bm pmb underline operatorname rm bf it sf tt "
    "boldmath large Large LARGE huge Huge small normalsize".split()
)
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp".split()
_NAMES = {
    **dict.fromkeys(
        "left right middle displaystyle textstyle scriptstyle limits nolimits strut big Big bigg "
        "Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm".split(),
        "",
    ),
    **dict.fromkeys("quad qquad enspace thinspace thickspace hfill".split(), " "),
    **dict.fromkeys("dfrac tfrac cfrac nicefrac sfrac".split(), r"\frac"),
    **{"leq": r"\le", "leqslant": r"\le", "geq": r"\ge", "geqslant": r"\ge", "neq": r"\ne"},
    **{"bigcup": r"\cup", "degree": r"^{\circ}", "textdegree": r"^{\circ}", "cr": r"\\"},
    **dict.fromkeys("lvert rvert vert mid".split(), "|"),
    **{"lbrack": "[", "rbrack": "]", "lbrace": r"\{", "rbrace": r"\}", "dots": r"\ldots"},
    **{
        "div": "/",
        "doteq": r"\approx",
        "simeq": r"\approx",
        "bar": r"\overline",
        "dot": r"\overline",
    },
}
_SYMBOLS = {**dict.fromkeys("!()[]", ""), **dict.fromkeys(",;:> ", " ")}
# A row break of a matrix comes first, so that `\\[` and `\\,` are not mistaken for `\[` and `\,`.
_COMMAND = re.compile(
    r"(?P<row>\\\\)(?:\[-?[0-9.]+ ?[a-z]{2}\])?"
    r"|(?P<nothing>\\(?:left|right)\s*\.(?![0-9]))"
    r"|(?P<dropped>\\(?:hspace|vspace|phantom|color|textcolor|tag)\*?\s*\{[^{}]*\})"
    r"|\\(?P<name>[A-Za-z]+)\*?(?P<braced>\s*(?=\{))?"
    r"|\\(?P<symbol>[^A-Za-z0-9])"
)


def _command(match: re.Match) -> str:
    name, symbol = match["name"], match["symbol"]
    if match["row"]:
        return r"\\"
    if name in _FONTS:
        return r"\text" if match["braced"] is not None else ""
    if name is not None:
        return _NAMES.get(name, match[0])
    return "" if symbol is None else _SYMBOLS.get(symbol, match[0])


# The content of `\text{}`, with at most two levels of braces inside.
_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]+)*")


def _text(match: re.Match) -> str:
    r"""Returns the mathematics of `\text{17 cm}`, which is 17\text{cm}, and words as they are."""
    content = match[1].strip()
    if content in _FUNCTIONS:
        return rf"\{content} "
    if content in ("i", "e") or not re.search("[A-Za-z]", content) or re.search(r"[{\\]", content):
        return content
    if re.search("[0-9]", content):
        return _WORDS.sub(lambda words: rf"\text{{{words[0]}}}", content)
    return rf"\text{{{content}}}"


def _unbraced(match: re.Match) -> str:
    """Returns a group without its braces; a command at its end is not joined to what follows."""
    return match[1] + (" " if re.search(r"\\[A-Za-z]+$", match[1]) else "")


def _joined(match: re.Match) -> str:
    """Returns a number without what separates its thousands."""
    return re.sub("[^0-9]", "", match[0])


# Once only: "3, 500" is a list, and is 3,500 without its space.
_THOUSANDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\s*\{\s*((?:\\\$)?[0-9,.]+)\s*\}", r"\1"),
        # 10,\!080, 10{,}080, 10\,080, 10 080, 10\ 080.
        (r"(?<=[0-9])(?:,\\!\s*|\{,\}|\\[,;:]\s*)(?=[0-9]{3}(?![0-9]))", ""),
        (
            r"(?<![0-9.,])(?<![0-9.,] )[1-9][0-9]{0,2}(?:\\? [0-9]{3})+(?![0-9/]| ?\\\w?frac)",
            _joined,
        ),
        (r"(?<![0-9\\])\\[,;:!]", " "),
        # 10,080, but no space after the comma, and not coordinates as in "(1,234)".
        (r"(?<![0-9.,(\[{])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,)\]}])", _joined),
    )
]
_BASES = {
    word: number
    for number, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve".split(), start=2
    )
}
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_COMMAND, _command),
        (r"(?<!\\)\$|\*\*(?=\s*$)|^\s*\*\*", ""),
        (r"\*\*", "^"),
        (r"\.\.\.", r"\\ldots "),
        (_TEXT, _text),
        (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\}) ?", r"^{\\circ}"),
        (r"(?<![\\A-Za-z])(pi|sqrt|infty)(?![A-Za-z])", r"\\\1"),
        (
            rf"(?<![\\A-Za-z])({'|'.join(_FUNCTIONS)})(?=[({{]| ?(?:[A-Za-z](?![A-Za-z])|[0-9\\]))",
            r"\\\1",
        ),
        (r"\\sqrt\s*\(([^()]{1,100})\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9]+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9A-Za-z])\s*(?=[0-9A-Za-z{])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]{1,100}\})\s*([0-9A-Za-z])", r"\1{\2}"),
        (r"\\frac\{\\text\{([^{}]*)\}\}\{\\text\{([^{}]*)\}\}", r"\\text{\1}/\\text{\2}"),
        (r"\\overline\s*([0-9])", r"\\overline{\1}"),
        (r"\{([^{}]{1,100})\\over(?![A-Za-z])([^{}]{1,100})\}", r"\\frac{\1}{\2}"),
        (r"([_^])\s*(-?[0-9]+|[A-Za-z])", r"\1{\2}"),
        (r"\\begin\{(?:array|tabular)\}\s*\{[^{}]*\}", r"\\begin{matrix}"),
        (r"\\end\{(?:array|tabular)\}", r"\\end{matrix}"),
        (r"\{(p|b|v|V|B)?smallmatrix\}", r"{\1matrix}"),
        # A number in another base: (324)_7, {324}_{7}, 324_{\text{base }7}.
        (r"[{(]([0-9]+)[)}](?=_\{)", r"\1"),
        (r"(?<=[0-9]_)\{(?:\\text\{base\}|\() ?([0-9]+)\)?\}", r"{\1}"),
        (r"([0-9]+)\(?(?:\\text\{\(?(?:in )?base\} ?| (?:in )?base )([0-9]+)\)?", r"\1_{\2}"),
        (rf"_\{{\\text\{{({'|'.join(_BASES)})\}}\}}", lambda word: f"_{{{_BASES[word[1]]}}}"),
        # \text{The answer is}5
        (r"^\\text\{[A-Za-z ]* (?:is|are|equals)\} ?", ""),
        (r"\s+", " "),
        # Remove a space unless it separates words or numbers: "\pi r", "3 4", "4 or 5".
        (r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])|(?<=[0-9]) (?=[A-Za-z](?![A-Za-z]))", ""),
        # Braces that LaTeX does not show: {-}42, {5}/{18}, 15{\pi}.
        (r"(?<![\\A-Za-z}\]^_])\{([^{}]*(?<!\\))\}(?!\{)", _unbraced),
        # 8+(-3)i, 11+-1i.
        (r"\+(?:\((-[0-9.]+)\)(?![\^!])|(?=-))", r"\1"),
    )
]
_UNWRAP = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_MAX_ROUNDS = 10  # a text that changes so often is nobody's answer


def normalise(answer: str) -> str:
    r"""Returns an answer in normal form: the same mathematics in one spelling of LaTeX.

    It removes `$`, `\left`, `\right`, spacing, `\dfrac`, fonts, colours, separators of thousands, a
    final full stop and braces that are not needed. It adds the braces of `\frac12`, `x^2` and
    `\sqrt2`. Characters such as π become commands; unprintable ones become U+FFFD or a space, or
    vanish.

    >>> [normalise(text) for text in (r"$\dfrac 34.$", r"\left( 3, 4 \right]", r"10,\!080")]
    ['\\frac{3}{4}', '(3,4]', '10080']
    >>> normalise(r"\mathbf{17} \mathrm{~cm}"), normalise(r"\text{4 and -9}")
    ('17\\text{cm}', '4\\text{and}-9')
    """
    text = answer.translate(_CHARACTERS)
    for pattern, replacement in _THOUSANDS:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_ROUNDS):
        before = text
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
        text = text.strip(" ").rstrip(".,;:").removesuffix("\\").strip(" ")
        text = _UNWRAP.sub("", text, count=1) if _UNWRAP.match(text) else text
        if text.startswith("{") and closing_brace(text) == len(text) - 1:
            text = text[1:-1]
        if text == before:
            break
    return text


def closing_brace(text: str) -> int:
    """Returns the index at which a text's opening brace is closed, or -1."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0 and token[0] == "}":
            return token.start()
    return -1
