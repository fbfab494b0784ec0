"""The HTTP reference, from the OpenAPI document that the server gives out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jobyard.api.app import ROUTES
from jobyard.api.openapi import document
from jobyard.api.pages.docs import about, curl, json_type
from reference import table

Object = dict[str, Any]
PROBLEM = "application/problem+json"


def routes() -> str:
    """Every route, by its tag. What can befall any of them is said once."""
    operations = list(_operations(document(ROUTES, guarded=True)))
    anywhere = set.intersection(
        *({*_codes(operation)} for _, _, operation in operations if "security" in operation)
    )
    parts = [
        table(("route", "what it does"), [_entry(*found) for found in operations]),
        f"Any request may be refused with {_links(_codes(operations[0][2]), anywhere)}; what else can befall it stands "
        "with each. Every answer carries `X-Request-Id`: yours if you sent one, else a new one.",
    ]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        parts.append(f"## {tag.capitalize()}")
        parts += [_operation(*found, anywhere) for found in operations if found[2]["tags"][0] == tag]
    return "\n\n".join(parts)


def shapes() -> str:
    """Every JSON object that goes over the wire."""
    schemas: Object = document(ROUTES, guarded=True)["components"]["schemas"]
    named = {name: schema for name, schema in schemas.items() if not name.endswith("Query")}
    return "\n\n".join(_shape(name, schema) for name, schema in sorted(named.items()))


def _operations(described: Object) -> Iterator[tuple[str, str, Object]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _entry(path: str, method: str, operation: Object) -> tuple[str, str]:
    summary = operation["summary"]
    return f"[`{method} {path}`](#{summary.lower().replace(' ', '-')})", summary


def _codes(operation: Object) -> dict[str, str]:
    """Code of a problem -> status."""
    return {
        code: status
        for status, answer in operation["responses"].items()
        for code in answer.get("content", {}).get(PROBLEM, {}).get("examples", ())
    }


def _links(codes: dict[str, str], wanted: Iterable[str]) -> str:
    return ", ".join(
        f"{codes[code]} [`{code}`](errors.md#{code})"
        for code in sorted(wanted, key=lambda code: (codes[code], code))
    )


def _operation(path: str, method: str, operation: Object, anywhere: set[str]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    codes = _codes(operation)
    own = codes.keys() - anywhere
    example = curl(path, method, body.get("example"))
    parts = [
        f"### {operation['summary']}",
        f"`{method} {path}`" + ("" if "security" in operation else " (needs no key)"),
        operation["description"],
        f"```sh\n{example}\n```",
        _parameters(operation["parameters"]),
        f"The body is a {_link(body['schema'])}." if body else "",
        table(("status", "meaning", "body", "headers"), _answers(operation["responses"])),
        f"Refused with {_links(codes, own)}." if own else "",
    ]
    return "\n\n".join(filter(None, parts))


def _parameters(parameters: list[Object]) -> str:
    rows = [
        (
            f"`{parameter['name']}`",
            parameter["in"],
            _type(parameter["schema"]),
            " ".join(filter(None, (parameter.get("description"), _default(parameter["schema"])))),
        )
        for parameter in parameters
    ]
    return table(("parameter", "in", "type", "meaning"), rows) if rows else ""


def _answers(responses: Object) -> Iterable[tuple[str, str, str, str]]:
    for status, answer in sorted(responses.items()):
        content = answer.get("content", {})
        headers = ", ".join(f"`{name}`" for name in answer["headers"] if name != "X-Request-Id")
        if PROBLEM not in content:
            yield status, answer["description"], _body(content), headers


def _body(content: Object) -> str:
    for media, described in content.items():
        return (
            _link(described["schema"])
            if media == "application/json" and described["schema"]
            else f"`{media}`"
        )
    return ""


def _link(schema: Object) -> str:
    return " or ".join(
        f"[{name}](#{name.lower()})"
        for part in schema.get("anyOf", [schema])
        if (name := part.get("$ref", "").rpartition("/")[2])
    ) or _type(schema)


def _shape(name: str, schema: Object) -> str:
    parts = [f"### {name}", schema.get("description", "")]
    if "enum" in schema:
        parts.append(", ".join(f"`{value}`" for value in schema["enum"]))
    required = schema.get("required", ())
    rows = [
        (
            f"`{field}`",
            _type(described),
            " ".join(
                filter(
                    None,
                    (about(described), "Required." if field in required else _default(described)),
                )
            ),
        )
        for field, described in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(table(("field", "type", "meaning"), rows))
    return "\n\n".join(filter(None, parts))


def _default(schema: Object) -> str:
    default = schema.get("default")
    return "" if default in (None, {}, []) else f"`{default}` unless given."


def _type(schema: Object) -> str:
    """Its kind with its bounds; a shape is linked."""
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    null = " or null" if len(choices) < len(schema.get("anyOf", [schema])) else ""
    return " or ".join(_link(part) if "$ref" in part else _list_or_kind(part) for part in choices) + null


def _list_or_kind(schema: Object) -> str:
    if schema.get("type") == "array" and "$ref" in schema.get("items", {}):
        return f"list of {_link(schema['items'])}"
    return json_type(schema)
