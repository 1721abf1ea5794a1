"""The documentation as a site: `make docs` builds it into docs/_build/html."""

from importlib import metadata

project = "Orchestrator"
author = "the Orchestrator maintainers"
copyright = "the Orchestrator maintainers, Apache License 2.0"
version = release = metadata.version("kafka-orchestrator")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_llms_txt"]
exclude_patterns = ["_build"]
root_doc = "index"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
nitpicky = False

html_theme = "furo"
html_title = "Orchestrator"
html_show_sphinx = False

llms_txt_summary = (
    "Durable execution for Python whose only infrastructure is Kafka: workflows as async Python."
)
