"""Documentation for programs that read: llms.txt, a map of all pages, and llms-full.txt, all of them in one.

A page in Markdown is linked as it was written. One in reStructuredText consists of docstrings, so it is
linked as the plain text that Sphinx makes of it. Links are relative: the site works below any path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_SENTENCE = re.compile(r".{25,}?[.:](?= )")
"""The first, but for one that is no more than a word."""

SEPARATOR = "\n\n" + "-" * 80 + "\n\n"


class Page(NamedTuple):
    """A page, as a program reads it; ``link`` is from the root of the site."""

    title: str
    about: str
    link: str
    text: str


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_config_value("llms_summary", "", "html", types=(str,))
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx, error: Exception | None) -> None:
    """Write both files, and the texts that they link to."""
    if error is not None or app.builder.format != "html":
        return
    head = f"# {app.config.project}\n\n> {app.config.llms_summary}\n"
    parts, texts = [head, "All of it in one file: [llms-full.txt](llms-full.txt)\n"], [head]
    for caption, documents in _sections(app):
        parts.append(f"## {caption}\n")
        for page in (_page(app, document) for document in documents):
            parts.append(f"- [{page.title}]({page.link}): {page.about}")
            texts.append(page.text.strip())
        parts.append("")
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(parts), encoding="utf-8")
    (out / "llms-full.txt").write_text(SEPARATOR.join(texts) + "\n", encoding="utf-8")


def _sections(app: Sphinx) -> Iterator[tuple[str, list[str]]]:
    """The captions of the root's lists, with their documents, those of lists in lists too."""
    for listed in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        yield (
            listed["caption"],
            [leaf for _, document in listed["entries"] for leaf in _leaves(app, document)],
        )


def _leaves(app: Sphinx, document: str) -> Iterator[str]:
    """The document, or those that it merely lists."""
    listed = app.env.toctree_includes.get(document)
    if not listed:
        yield document
    for below in listed or ():
        yield from _leaves(app, below)


def _page(app: Sphinx, document: str) -> Page:
    doctree = app.env.get_doctree(document)
    title = next(doctree.findall(nodes.title))
    first = next(one for one in doctree.findall(nodes.paragraph) if isinstance(one.parent, nodes.section))
    about = _SENTENCE.match(" ".join(first.astext().split()) + " ")
    assert about, f"{document} begins with no sentence that says what it is about"
    source = Path(app.env.doc2path(document))
    if source.suffix == ".md":
        link = f"_sources/{document}.md{app.config.html_sourcelink_suffix}"
        text = source.read_text(encoding="utf-8")
    else:
        link, text = f"{document}.txt", _text(app, document)
        (Path(app.outdir) / link).write_text(text, encoding="utf-8")
    return Page(title.astext(), about[0], link, text)


def _text(app: Sphinx, document: str) -> str:
    builder = app.registry.create_builder(app, "text", app.env)
    builder.init()
    doctree = app.env.get_and_resolve_doctree(document, builder)
    translator = builder.create_translator(doctree, builder)
    doctree.walkabout(translator)
    return str(translator.body)
