"""Fetches the published data files of the tasks and checks their sha256.

`python -m passk_jax.tasks.download [mbpp humaneval math math-train arc-agi-1] [--to FOLDER]`
"""

import argparse
import hashlib
import io
import os
import pathlib
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from passk_jax.tasks import data


class Source(NamedTuple):
    """One published data set.

    Attributes:
      url: The URL of the published file.
      file: Its path in the data folder. For an archive, the folder to unpack into.
      sha256: The file's digest, under "". For an archive, each folder's `folder_digest`, by name.
      licence: The licence that its publishers state.
      archive: The folders to unpack from a zip archive, as (path in the archive, name here).
    """

    url: str
    file: str
    sha256: dict[str, str]
    licence: str
    archive: tuple[tuple[str, str], ...] = ()


SOURCES = {
    "mbpp": Source(
        "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl",
        "mbpp/mbpp.jsonl",
        {"": "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"},
        "CC-BY-4.0",
    ),
    "humaneval": Source(
        "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz",
        "humaneval/HumanEval.jsonl.gz",
        {"": "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"},
        "MIT",
    ),
    "math": Source(
        "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits/"
        "test.jsonl",
        "math/test.jsonl",
        {"": "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"},
        "MIT, as its publishers state",
    ),
    "math-train": Source(
        "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits/"
        "train.jsonl",
        "math/train.jsonl",
        {"": "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076"},
        "MIT, as its publishers state",
    ),
    "arc-agi-1": Source(
        "https://github.com/fchollet/ARC-AGI/archive/refs/heads/master.zip",
        "arc-agi-1",
        {
            "training": "a8753effe78e38dc833535c1c6baee8dd5008613de5757d51804046aa246a143",
            "evaluation": "134269cc5569e49fb8ee06a8c197714e90eb474b82e7db2bdf06cbd2ede80bd6",
        },
        "Apache-2.0",
        (("data/training", "training"), ("data/evaluation", "evaluation")),
    ),
}


class DownloadError(RuntimeError):
    """A data set cannot be fetched, or what was fetched is not the published one."""


def folder_digest(folder: pathlib.Path) -> str:
    """Returns the sha256 of the output of `LC_ALL=C sha256sum *.json` in a folder."""
    lines = [f"{data.sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.json"))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_there(source: Source, root: pathlib.Path) -> bool:
    """Returns whether the folder already holds the published data set."""
    place = root / source.file
    if source.archive:
        return all(
            (place / name).is_dir() and folder_digest(place / name) == digest
            for name, digest in source.sha256.items()
        )
    return place.is_file() and data.sha256(place) == source.sha256[""]


def fetch(source: Source, root: pathlib.Path, read: Callable[[str], bytes]) -> None:
    """Fetches one data set. It is put in its place only if it is the published one.

    Args:
      source: The data set.
      root: The data folder.
      read: A function that takes a URL and returns the content there.

    Raises:
      DownloadError: The URL cannot be reached, or its content is not the published one.
    """
    try:
        content = read(source.url)
    except (urllib.error.URLError, OSError) as error:
        raise DownloadError(
            f"{source.url} cannot be reached: {error}. Fetch it on a machine with a network, put "
            f"it at {root / source.file}, and run this command again to check it"
        ) from error
    place = root / source.file
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.archive:
        _unpack(source, content, place)
        return
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256[""]:
        raise DownloadError(
            f"{source.url} gave {len(content)} bytes with the sha256 {found}, not "
            f"{source.sha256['']}: the published file has changed, or the download was altered"
        )
    part = place.with_name(place.name + ".part")
    part.write_bytes(content)
    part.replace(place)


def _unpack(source: Source, content: bytes, place: pathlib.Path) -> None:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{source.url} gave {len(content)} bytes, not a zip archive") from error
    for inside, name in source.archive:
        part = place / f"{name}.part"
        part.mkdir(parents=True, exist_ok=True)
        for member in archive.namelist():
            folder, _, file = member.rpartition("/")
            if file.endswith(".json") and folder.endswith("/" + inside):
                (part / file).write_bytes(archive.read(member))
        found = folder_digest(part)
        if found != source.sha256[name]:
            raise DownloadError(
                f"{source.url}, {inside}: the folder's digest is {found}, not {source.sha256[name]}"
            )
        part.replace(place / name)


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(SOURCES)} (default: all)")
    parser.add_argument("--to", default=os.environ.get(data.ENVIRONMENT_VARIABLE), metavar="FOLDER")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in SOURCES]
    if unknown or not options.to:
        print(
            f"error: unknown data set {unknown[0]!r}; known: {', '.join(SOURCES)}"
            if unknown
            else f"error: give the data folder by --to FOLDER or {data.ENVIRONMENT_VARIABLE}",
            file=sys.stderr,
        )
        return 2
    root, failed = pathlib.Path(options.to), False
    for name in options.names or SOURCES:
        source = SOURCES[name]
        try:
            present = is_there(source, root)
            if not present:
                fetch(source, root, _read)
            print(f"{name}: {'already' if present else 'now'} in {root / source.file}")
        except (DownloadError, OSError) as error:
            failed = True
            print(f"{name}: error: {error}", file=sys.stderr)
    print(f"Use it by --config.data_dir={root} or {data.ENVIRONMENT_VARIABLE}={root}.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
