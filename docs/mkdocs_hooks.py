"""MkDocs hooks: pages of the site that are made from files outside docs/, and the reference of the commands.

A link in a page is a path from the page's own file, so it works on GitHub and in an editor. A link that leads
out of docs/ needs a page in the site: one for each file in PAGES, and one with
the source text for every other file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from bcm_edge.cli import main

ROOT = Path(__file__).resolve().parent.parent

# A Markdown file outside docs/ → its page in the site.
PAGES = {
    "README.md": "index.md",
    "deploy/README.md": "deploy.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LANGUAGES = {
    ".py": "python",
    ".sh": "sh",
    ".mjs": "js",
    ".cpp": "cpp",
    ".hpp": "cpp",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
}
COMMANDS = "<!-- commands -->"  # where a page has the reference of all commands
# Options of the pages with source text, which are not listed in the navigation and not searched.
_ALONE = "hide:\n  - navigation\n  - toc\nsearch:\n  exclude: true\n"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of PAGES, and a page with the source text of each other file that a page links to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=_text(path)))
    linked = {target for file in files.documentation_pages() for target in _outside(file)}
    linked |= {f"{path}/{name}" for path in linked if (ROOT / path).is_dir() for name in _shown(path)}
    for path in sorted(linked - set(PAGES)):
        content = _folder(path) if (ROOT / path).is_dir() else _source(path)
        files.append(
            File.generated(config, _page(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV)
        )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages, and insert the commands."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, "\n".join(_commands()))
    return _LINK.sub(lambda link: link[1] + _in_site(link[2], page.file.src_uri) + link[3], markdown)


def _home(src_uri: str) -> Path:
    """Return the folder of the file that a page is made from. Its links are relative to this folder."""
    path = next((path for path, page in PAGES.items() if page == src_uri), f"docs/{src_uri}")
    return (ROOT / path).parent


def _repository_path(link: str, src_uri: str) -> str | None:
    """Return the file or folder that a link leads to, as a path from the repository's root.

    A folder with a README.md stands for that file. None for a web address, and for what does not exist.
    """
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    target = Path(os.path.normpath(_home(src_uri) / link))
    if target.is_dir() and (target / "README.md").is_file():
        target /= "README.md"
    inside = target.exists() and target.is_relative_to(ROOT)
    return target.relative_to(ROOT).as_posix() if inside else None


def _outside(file: File) -> Iterator[str]:
    """Yield the files outside docs/ that a page links to, as paths from the repository's root."""
    for link in _LINK.finditer(file.content_string):
        path = _repository_path(link[2], file.src_uri)
        if path and not path.startswith("docs/"):
            yield path


def _page(path: str) -> str:
    """Return the page of a file of the repository, as a path from docs/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"source/{path}{'/index' if (ROOT / path).is_dir() else ''}.md")


def _in_site(link: str, src_uri: str) -> str:
    """Return a link of a page as the site needs it."""
    path = _repository_path(link, src_uri)
    return os.path.relpath(_page(path), Path(src_uri).parent) if path else link


def _text(path: str) -> str:
    """Return the Markdown of a page of PAGES. The home page has no list of pages beside it."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"---\nhide:\n  - navigation\n---\n\n{text}" if path == "README.md" else text


def _shown(path: str) -> list[str]:
    """Return the names of the files of a folder that have pages of their own."""
    return sorted(file.name for file in (ROOT / path).iterdir() if file.suffix in LANGUAGES)


def _folder(path: str) -> str:
    """Return a page that lists the files of a folder."""
    title = path.replace("_", r"\_")
    listing = "\n".join(f"- [`{name}`]({name}.md)" for name in _shown(path))
    return f"---\n{_ALONE}---\n\n# {title}\n\n{listing}\n"


def _source(path: str) -> str:
    """Return a page that shows the text of a file. The search of the site does not include it."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip("\n")
    language = LANGUAGES.get(Path(path).suffix, "make" if path == "Makefile" else "text")
    fence = "`" * 6
    title = path.replace("_", r"\_")
    return f"---\n{_ALONE}---\n\n# {title}\n\n{fence}{language}\n{text}\n{fence}\n"


def _commands() -> Iterator[str]:
    """Yield the commands in the groups and the order of `bcm-edge --help`."""
    for group, commands in main.groups.items():
        yield f"## {group}\n"
        for name, module in commands.items():
            yield from _command(name, module)


def _command(name: str, module: str) -> Iterator[str]:
    """Yield a block of mkdocs-click for a command, and its example, which mkdocs-click leaves out."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    options = {
        "module": f"bcm_edge.commands.{module}",
        "command": name,
        "prog_name": f"bcm-edge {name}",
        "depth": 2,
        "style": "plain",
    }
    yield "::: mkdocs-click\n" + "".join(f"    :{key}: {value}\n" for key, value in options.items())
    if command.epilog:
        title, _, example = command.epilog.partition(":")
        yield f"**{title}:**\n\n```sh\n{example.strip()}\n```\n"
