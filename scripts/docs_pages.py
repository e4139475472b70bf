"""Pages of the site from elsewhere in the repository, and links between files.

This is a mkdocs hook, named in `mkdocs.yml`. All texts are written for the repository, with links
as paths between files. On the site, a link to a file with a page leads to the page, a link to
another file of the repository leads to `repo_url`, and without `repo_url` the link is removed.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# Locations of files on the site, by their locations in the repository.
ELSEWHERE = {
    "README.md": "index.md",
    "BENCHMARKS.md": "benchmarks.md",
    "REPRODUCTION.md": "reproduction.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE",
    "examples/tutorial.ipynb": "tutorial.ipynb",
    "examples/github-action/README.md": "github-action.md",
    "examples/github-action/check_drift.py": "examples/github-action/check_drift.py",
    "examples/github-action/clusterability.yml": "examples/github-action/clusterability.yml",
    "examples/plain_torch.py": "examples/plain_torch.py",
    "examples/lightning_callback.py": "examples/lightning_callback.py",
    "examples/hugging_face_trainer.py": "examples/hugging_face_trainer.py",
}
IN_REPOSITORY = {on_site: path for path, on_site in ELSEWHERE.items()}
COMMAND_LINE = "reference/command-line.md"

# A Markdown link or picture, or a piece of code, which contains no links.
CODE = r"```.*?```|`[^`\n]+`"
MARKDOWN = re.compile(
    CODE + r"|\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^)\s]+)\)", re.DOTALL
)
# The same in a page made from a notebook.
HTML = re.compile(r'<a href="(?P<to>[^"]+)"[^>]*>(?P<text>.*?)</a>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show on each page which version it describes."""
    config.copyright = f"ncut {version('ncut')}"
    return config


@event_priority(100)  # before the plugin that looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for path, on_site in ELSEWHERE.items():
        # The plugin for notebooks needs a folder and a path in it, where that is possible.
        if path.endswith(on_site):
            folder = str(ROOT / path.removesuffix(on_site))
            files.append(File(on_site, folder, config.site_dir, config.use_directory_urls))
        else:
            files.append(File.generated(config, on_site, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    return files


def command_line() -> str:
    """The commands' help as Markdown."""
    command = ["typer", "ncut.cli.app", "utils", "docs", "--name", "ncut", "--title"]
    text = subprocess.run(
        [sys.executable, "-m", *command, "Command line"], check=True, capture_output=True, text=True
    ).stdout
    # Lists of commands truncate their sentences; the sections have the full text.
    sections = re.findall(r"^#+ `(ncut (?:\S+ )*(\S+))`\n\n(.+)$", text, re.MULTILINE)
    for whole, name, sentence in sections:
        entry = f"* [`{name}`](#{whole.replace(' ', '-')}): {sentence}"
        text = re.sub(rf"^\* `{name}`: .*$", lambda _, entry=entry: entry, text, flags=re.MULTILINE)
    return text


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links for the repository by links for the site."""

    def replaced(match: re.Match[str]) -> str:
        if match["to"] is None:
            return match[0]
        to, text = link(match["to"], page.file, config, files), match["text"]
        if to is None:
            return text
        if text.endswith(".md"):  # a file's name, which on the site has a better one
            at = posixpath.join(posixpath.dirname(page.file.src_uri), to.partition("#")[0])
            text = titles(config.nav).get(posixpath.normpath(at), text)
        return f"[{text}]({to})"

    return MARKDOWN.sub(replaced, markdown)


def titles(nav: Any) -> dict[str, str]:
    """The pages' titles in the navigation, by their sources."""
    found: dict[str, str] = {}
    for entry in nav:
        for title, inside in entry.items() if isinstance(entry, dict) else ():
            found |= {inside: title} if isinstance(inside, str) else titles(inside)
    return found


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The same in a notebook, whose Markdown mkdocs does not see."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def replaced(match: re.Match[str]) -> str:
        to = link(match["to"], page.file, config, files)
        if to is None:
            return match["text"]
        path, hash_sign, anchor = to.partition("#")
        target = files.get_file_from_path(posixpath.normpath(path))
        if target is None:
            return match[0]
        url = target.url_relative_to(page.file)
        return f'<a href="{url}{hash_sign}{anchor}">{match["text"]}</a>'

    return HTML.sub(replaced, html)


def link(to: str, file: File, config: MkDocsConfig, files: Files) -> str | None:
    """The target of a file's link on the site, in mkdocs' form: from source to source."""
    path, hash_sign, anchor = to.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return to
    here = IN_REPOSITORY.get(file.src_uri, f"docs/{file.src_uri}")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    on_site = files.get_file_from_path(ELSEWHERE.get(there, there.removeprefix("docs/")))
    if on_site is not None:
        folder = posixpath.dirname(file.src_uri) or "."
        return posixpath.relpath(on_site.src_uri, folder) + hash_sign + anchor
    if not (ROOT / there).exists():
        return to  # for mkdocs to complain of
    return f"{config.repo_url.rstrip('/')}/blob/HEAD/{there}" if config.repo_url else None
