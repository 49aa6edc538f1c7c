"""JSON schema and reference page of a file format that a pydantic model defines.

Both are made from the model and the docstrings of its fields, so that they say what the program checks. Editors use
the schema through a first line `# yaml-language-server: $schema=PATH`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from pydantic import BaseModel

type JsonSchema = dict[str, Any]
"""A JSON schema being made: a document of an open format, which is written and steers nothing."""

type SchemaNode = Mapping[str, Any]
"""A node of a JSON schema, which is open JSON by its own standard."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


class Untitled(GenerateJsonSchema):
    """Schemas without titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def model_schema(model: type[BaseModel], title: str, prefix: str = "") -> JsonSchema:
    """JSON schema of a model, draft 2020-12: descriptions are the docstrings of its fields, on one line.

    prefix: put before the names of its definitions, for a schema that several models are joined to.
    """
    made = model.model_json_schema(schema_generator=Untitled, ref_template=f"#/$defs/{prefix}{{model}}")
    definitions = {f"{prefix}{name}": one_line(node) for name, node in made.pop("$defs", {}).items()}
    return {"$schema": DIALECT, "title": title, **one_line(made), "$defs": definitions}


def schema_text(schema: SchemaNode) -> str:
    """A schema as it is written to a file, without the last line's end."""
    return json.dumps(schema, indent=1, ensure_ascii=False)


def one_line(node: Any) -> Any:
    """The schema with descriptions on one line, and without the names of classes as titles."""
    if isinstance(node, list):
        return [one_line(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: one_line(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept


@dataclass(frozen=True)
class KeySection:
    """The keys of one mapping of a document."""

    heading: str
    """The key, or keys, that hold the mapping; "" for the document itself."""
    definition: str
    """Name of its definition in the schema; "" for the document itself."""
    node: SchemaNode
    """Its schema, an object with properties."""


def reference_page(schema: SchemaNode, intro: str, more: Sequence[KeySection] = ()) -> str:
    """Markdown page of all keys: a table for the document and for every mapping in it, then those of `more`.

    intro: what stands between the heading and the first table.
    """
    sections = list(_sections(schema, [KeySection("", "", schema), *more]))
    headings = {section.definition: section.heading for section in sections}
    lines = [f"# {schema['title']}", "", intro.strip(), ""]
    for section in sections:
        if section.heading:
            lines += [f"## {section.heading}", ""]
            lines += [section.node["description"], ""] if section.node.get("description") else []
        lines += ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
        for key, node in section.node["properties"].items():
            default = "required" if key in section.node.get("required", ()) else _default(schema, node)
            about = node.get("description") or resolved(schema, node).get("description", "")
            cells = (f"`{key}`", _type(schema, node, headings), default, about)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _sections(schema: SchemaNode, first: Sequence[KeySection]) -> Iterator[KeySection]:
    """The given sections, each followed by those of the mappings in it, headed by the keys that hold them."""
    met: set[str] = set()
    todo = list(first)
    while todo:
        section = todo.pop(0)
        yield section
        inner: dict[str, KeySection] = {}
        for key, node in section.node["properties"].items():
            for name, found in _objects(schema, node):
                known = inner.get(name)
                inner[name] = KeySection(f"{known.heading}, {key}" if known else key, name, found)
        todo[:0] = [section for name, section in inner.items() if name not in met]
        met |= set(inner)


def _objects(schema: SchemaNode, node: SchemaNode, name: str = "") -> Iterator[tuple[str, SchemaNode]]:
    """(definition, object) of the mappings with keys of their own at a node: itself, its alternatives, its items."""
    name = _definition(node) or name
    below = resolved(schema, node)
    if "properties" in below:
        yield name, below
        return
    for part in (*below.get("anyOf", ()), *([below["items"]] if isinstance(below.get("items"), dict) else ())):
        yield from _objects(schema, part, name)


def _definition(node: SchemaNode) -> str:
    """Name of the definition that a node refers to; "" where it does not."""
    return str(node.get("$ref", "")).rpartition("/")[2]


def resolved(schema: SchemaNode, node: SchemaNode) -> SchemaNode:
    """What a reference stands for."""
    while "$ref" in node:
        node = schema["$defs"][_definition(node)]
    return node


def _type(schema: SchemaNode, node: SchemaNode, headings: Mapping[str, str], name: str = "") -> str:
    """A node's type in words, mappings with keys of their own as links to their sections."""
    name = _definition(node) or name
    below = resolved(schema, node)
    if "properties" in below:
        heading = headings[name]
        return f"[{heading}](#{re.sub(r'[^a-z0-9_ -]', '', heading.lower()).replace(' ', '-')})"
    if "anyOf" in below:
        return " or ".join(dict.fromkeys(_type(schema, part, headings, name) for part in below["anyOf"]))
    if "enum" in below or "const" in below:
        return ", ".join(f"`{json.dumps(value)}`" for value in below.get("enum", [below.get("const")]))
    if below.get("type") == "array":
        if "prefixItems" in below:
            return f"[{', '.join(_type(schema, part, headings) for part in below['prefixItems'])}]"
        return f"list of {_type(schema, below.get('items', {}), headings)}"
    if below.get("type") == "object":
        values = below.get("additionalProperties")
        return f"mapping to {_type(schema, values, headings)}" if isinstance(values, dict) and values else "mapping"
    bounds = [f"{sign} {below[limit]:g}" for limit, sign in _BOUNDS.items() if limit in below]
    bounds += [f"multiple of {below['multipleOf']:g}"] if "multipleOf" in below else []
    return " ".join([WORDS.get(below.get("type", ""), "any value"), *([", ".join(bounds)] if bounds else [])])


def _default(schema: SchemaNode, node: SchemaNode) -> str:
    """A default as YAML would have it; "" where it is a mapping that has a section of its own, or is computed."""
    if "default" not in node or (node["default"] is not None and any(_objects(schema, node))):
        return ""
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`"
