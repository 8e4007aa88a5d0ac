"""Sphinx configuration of the documentation; `make docs` builds it."""

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from unittest import mock

import click
from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clarigrpc import types
from clarigrpc.cli import behaviour, main
from clarigrpc.cli.app import app as commands
from clarigrpc.local import LocalServer

sys.path.insert(0, str(Path(__file__).parent))

import layers_drawing
import reference_pages

project = "clarigrpc"
author = "the clarigrpc authors"
copyright = f"{author}, Apache License 2.0"
version = release = version_of("clarigrpc")

_HELP_COLUMNS = 100  # the width of a page

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]

# Options and JSON are there to be copied.
smartquotes = False

html_theme = "furo"
html_title = f"clarigrpc {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
# Names of aliases instead of what they stand for: the page on type annotations has them.
autodoc_type_aliases = {
    name: name for name in vars(types)["__all__"] if not isinstance(getattr(types, name), type)
}
# The arguments of a class are described in its text; most classes are not created by their users.
autodoc_class_signature = "separated"
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    # What the parts of a client use among themselves.
    "exclude-members": "__init__, close_with, message, raises_on_partial, unary, within",
}
# Types by the names that a reader would write, without their modules.
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
# "Attributes:" becomes a list like that of parameters.
napoleon_custom_sections = [("Attributes", "params_style")]


class LayersDirective(SphinxDirective):
    """``{layers} PACKAGE``: the drawing of a package's layers; the content is its description."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        drawing = layers_drawing.svg(self.arguments[0], " ".join(self.content))
        self.env.note_reread()  # it follows the code, which Sphinx does not watch
        return [nodes.raw("", drawing, format="html")]


class HelpDirective(SphinxDirective):
    """``{help}``: what ``--help`` of the command line prints, a section for each command."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        group = click.Context(commands, info_name="clarigrpc", **commands.context_settings)
        return [self._section(context) for context in self._contexts(group)]

    def _contexts(self, context: click.Context) -> Iterator[click.Context]:
        """The contexts of a command and of the commands in it."""
        yield context
        command = context.command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    yield from self._contexts(click.Context(inner, context, name))

    def _section(self, context: click.Context) -> nodes.section:
        context.terminal_width = _HELP_COLUMNS
        text = context.get_help()
        section = nodes.section("", nodes.title(text=context.command_path))
        section += nodes.literal_block(text, text, language="text")
        section["ids"] = [nodes.make_id(context.command_path)]
        return section


class ConformanceDirective(SphinxDirective):
    """``{conformance}``: what ``clarigrpc conformance`` prints about a local server."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        printed = io.StringIO()
        with LocalServer(pat="docs-" + "0" * 32) as server:
            variables = {
                "CLARIFAI_API_BASE": server.base,
                "CLARIFAI_PAT": server.pat,
                "CLARIFAI_USER_ID": server.user_id,
                "CLARIFAI_APP_ID": server.app_id,
                "COLUMNS": str(_HELP_COLUMNS),
            }
            with mock.patch.dict(os.environ, variables), contextlib.redirect_stdout(printed):
                main(["conformance", "--write-app", server.app_id, "--wait", "20"])
        return [nodes.literal_block("", printed.getvalue(), language="text")]


class FactsDirective(SphinxDirective):
    """``{facts}``: what is known of the service, a section for each area."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        areas = itertools.groupby(behaviour.load_facts().facts, lambda fact: fact.area)
        return [self._section(area, list(facts)) for area, facts in areas]

    def _section(self, area: str, facts: list[behaviour.Fact]) -> nodes.section:
        section = nodes.section("", nodes.title(text=area), ids=[nodes.make_id(area)])
        section += nodes.definition_list("", *map(self._item, facts))
        return section

    def _item(self, fact: behaviour.Fact) -> nodes.definition_list_item:
        term = nodes.term("", "", nodes.literal(text=fact.id), ids=[f"fact-{fact.id}"])
        body = nodes.definition("", nodes.paragraph(text=fact.claim))
        if fact.interpretation:
            body += nodes.paragraph(
                "", "", nodes.strong(text="Interpretation: "), nodes.Text(fact.interpretation)
            )
        calls = nodes.bullet_list()
        for step in fact.steps:
            if step.expect:
                calls += nodes.list_item("", self._call(step))
        body += calls
        sources = nodes.paragraph(text="Source: " if len(fact.sources) == 1 else "Sources: ")
        for number, (title, url) in enumerate(fact.sources):
            sources += nodes.Text("; " if number else "")
            sources += nodes.reference("", title, refuri=url)
        body += sources
        return nodes.definition_list_item("", term, body)

    def _call(self, step: behaviour.BehaviourStep) -> nodes.paragraph:
        call = nodes.paragraph("", "", nodes.literal(text=step.call))
        call += nodes.Text(", until " if step.until else ": ")
        for number, (path, expected) in enumerate(step.expect.items()):
            call += nodes.Text("; " if number else "")
            call += nodes.literal(text=path)
            call += nodes.Text(f" {behaviour.expectation_text(expected)}")
        return call


_ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")


def _name_aliases(
    app: Sphinx, kind: str, name: str, found: object, options: object, *shown: str | None
) -> tuple[str | None, ...]:
    """Signature and return type; Sphinx shows its placeholder of an alias inside other types."""
    # The types that it puts beside the texts of arguments, which it has recorded by now.
    recorded = app.env.current_document.autodoc_annotations.get(name, {})
    for argument, annotation in recorded.items():
        recorded[argument] = _ALIAS.sub(r"\1", annotation)
    return tuple(text and _ALIAS.sub(r"\1", str(text)) for text in shown)


def _write_reference(app: Sphinx) -> None:
    reference_pages.write(Path(app.srcdir) / "reference")


def setup(app: Sphinx) -> None:
    """Adds the directives, and shows HTTP requests although they lack what their lexer needs."""
    app.add_directive("conformance", ConformanceDirective)
    app.add_directive("facts", FactsDirective)
    app.add_directive("help", HelpDirective)
    app.add_directive("layers", LayersDirective)
    app.add_lexer("http", TextLexer)
    app.connect("builder-inited", _write_reference)
    app.connect("autodoc-process-signature", _name_aliases)
