"""The site's pages: the repository's Markdown where it lies, and one page of the API for each room.

A hook of mkdocs. The site has the folders of the repository, so that a link between two pages, or
from a page to a picture or a file, is the same there as in the repository.
"""

import ast
import fnmatch
import pathlib
import re

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "experiments/**/*.md")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Makes code blocks of the docstrings' examples, which Markdown takes for quotations."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


def pages():
    """The Markdown of the repository, as paths from its root."""
    return sorted({path.relative_to(ROOT) for glob in PAGES for path in ROOT.glob(glob)})


def linked(page):
    """The files that a page links, and that are no pages: pictures, configs, notebooks."""
    for target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = (ROOT / page).parent.joinpath(target).resolve()
        if path.is_file() and path.suffix != ".md":
            yield path.relative_to(ROOT)


def api():
    """{page: text}, a page for each room of the package and one for the modules beside them."""
    rooms = {}
    for path in sorted((ROOT / "passk_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not path.with_name("__init__.py").exists():
            raise PluginError(f"{path.parent} has no __init__.py: mkdocstrings would pass by it")
        if "configs" not in parts and parts[-1] != "__main__":
            room = parts[1] if len(parts) > 2 else "commands"
            name = ".".join(parts).removesuffix(".__init__")
            own = f"\n    options: {{members: {defined(path)}}}"
            options = own if parts[-1] == "__init__" else ""
            rooms.setdefault(room, [f"# {room}"]).append(f"::: {name}{options}")
    return {f"api/{room}.md": "\n\n".join(parts) + "\n" for room, parts in rooms.items()}


def defined(path):
    """What a module defines itself: what it imports from its neighbours is on the page already."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [part.name for part in body if isinstance(part, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")] or "false"


def on_config(config):
    """Fills in the patterns of nav."""
    found = [*map(str, pages()), *api()]
    config["nav"] = expand(config["nav"], found)
    return config


def expand(entry, found):
    if isinstance(entry, dict):
        return {title: expand(part, found) for title, part in entry.items()}
    if isinstance(entry, list):
        parts = [expand(part, found) for part in entry]
        return [one for part in parts for one in (part if isinstance(part, list) else [part])]
    return fnmatch.filter(found, entry) if "*" in entry else entry


def on_files(files, config):
    """Replaces what lies in docs/ by `pages` and `api`, under their paths from the root."""
    for file in list(files):
        if file.src_dir == config["docs_dir"]:
            files.remove(file)
    paths = {*pages(), pathlib.Path("docs/site.css")}
    for path in sorted(paths | {path for page in pages() for path in linked(page)}):
        files.append(File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
    for page, text in api().items():
        files.append(File.generated(config, page, content=text))
    return files
