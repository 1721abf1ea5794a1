"""The documentation as a site: `make docs` builds it into docs/_build/html."""

import re
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

from orchestrator.cli import EXIT_CODES, make_app

sys.path.insert(0, str(Path(__file__).parent))

project = "Orchestrator"
author = "the Orchestrator maintainers"
copyright = "the Orchestrator maintainers, Apache License 2.0"
version = release = metadata.version("kafka-orchestrator")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "for_programs"]
exclude_patterns = ["_build"]
root_doc = "index"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
nitpicky = False
smartquotes = False  # they would make a dash of the two hyphens of an option

html_theme = "furo"
html_title = "Orchestrator"
html_show_sphinx = False

llms_summary = "Durable execution for Python whose only infrastructure is Kafka: workflows as async Python."


def setup(app: Sphinx) -> None:
    """The page of the command line is made of the help texts."""
    app.connect("source-read", _with_commands)


def _with_commands(app: Sphinx, document: str, source: list[str]) -> None:
    if document == "reference/cli":
        commands = make_app().generate_docs(output_format="rst")
        examples = re.sub(r"^Example: (.+)$", r"Example: ``\1``", commands, flags=re.MULTILINE)
        source[0] += f"\n{EXIT_CODES}\n\n{examples}"
