"""`fwdata schema`."""

from __future__ import annotations

from typing import Annotated

import typer

from fwdata.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="schema")(schema)


def schema(
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="COMMAND", help="Of a command's JSON instead; all: of every one's."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page of all keys instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As without: a schema is JSON.")] = False,
) -> None:
    """Print the JSON schema of a manifest with the options of every converter, or of what a command prints.

    Editors check and complete a manifest whose first line is `# yaml-language-server: $schema=manifest-schema.json`.

    --of all --markdown prints docs/fwdata-json.md.

    Example: fwdata schema > manifest-schema.json
    """
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    if of is not None:
        from fwdata.cli.documents import DOCUMENTS
        from fwdata.report.json_documents import schema_answer

        print(schema_answer("fwdata", DOCUMENTS, of, markdown))
        return
    from fwdata.report.manifest_reference import manifest_page, manifest_schema
    from fwdata.report.model_reference import schema_text

    print(manifest_page() if markdown else schema_text(manifest_schema()))
