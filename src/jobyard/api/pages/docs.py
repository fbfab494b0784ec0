"""The OpenAPI document as one HTML page. Style and script stand inside it, known to the policy by their digests."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from jobyard.api.problems import KINDS

Object = dict[str, Any]
Rows = Sequence[Sequence[str]]


def _asset(name: str) -> str:
    return files("jobyard.api.pages").joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


STYLE, SCRIPT = _asset("docs.css"), _asset("docs.js")
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(document: Object) -> str:
    info, operations = document["info"], list(_operations(document))
    tags = dict.fromkeys(operation["tags"][0] for _, _, operation in operations)
    sections = "".join(
        f"<h2>{escape(tag)}</h2>"
        + "".join(_operation(document, *o) for o in operations if o[2]["tags"][0] == tag)
        for tag in tags
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Jobyard API</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"{_paragraphs(info['description'])}"
        "<p>The same for programs: <a href=/openapi.json>openapi.json</a></p></header>"
        f"{_contents(operations)}<main>{sections}{_problems(document)}</main>"
        f"<script>{SCRIPT}</script></body></html>"
    )


def _operations(document: Object) -> Iterable[tuple[str, str, Object]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _contents(operations: Iterable[tuple[str, str, Object]]) -> str:
    links = "".join(
        f"<li><a href='#{operation['operationId']}'>{_method(method)} <code>{escape(path)}</code></a>"
        for path, method, operation in operations
    )
    return f"<nav><ul>{links}<li><a href='#problems'>Problems</a></ul></nav>"


def _method(method: str) -> str:
    return f"<b class={method.lower()}>{method}</b>"


def _operation(document: Object, path: str, method: str, operation: Object) -> str:
    example, body = None, ""
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        example = media.get("example")
        body = _shape(document, media["schema"], "Body", opened=True)
    return (
        f"<section id={operation['operationId']}><h3>{_method(method)} <code>{escape(path)}</code></h3>"
        f"<p><strong>{escape(operation['summary'])}.</strong> {_prose(operation['description'])}</p>"
        f"<div class=example><button class=copy hidden>Copy</button><pre>{escape(curl(path, method, example))}</pre></div>"
        f"{_parameters(operation['parameters'])}{body}{_answers(document, operation['responses'])}</section>"
    )


def curl(path: str, method: str, example: Object | None) -> str:
    address = f"http://localhost:3000{path.replace('{id}', '$ID')}"
    if example is None:
        return f"curl {address}"
    return f"curl -X {method} {address} \\\n  -H 'Content-Type: application/json' \\\n  -d '{json.dumps(example)}'"


def _parameters(parameters: Sequence[Object]) -> str:
    rows = [
        [
            f"<code>{escape(parameter['name'])}</code>",
            parameter["in"],
            escape(json_type(parameter["schema"])),
            _prose(parameter.get("description", "")),
        ]
        for parameter in parameters
    ]
    return _table("Parameters", ("Name", "In", "Type", ""), rows)


def _answers(document: Object, responses: Object) -> str:
    rows = [
        [f"<code>{status}</code>", _prose(answer["description"]), escape(", ".join(answer["headers"]))]
        for status, answer in sorted(responses.items())
    ]
    shapes = {
        ref: _shape(document, {"$ref": ref}, f"Answer {status}")
        for status, answer in responses.items()
        for ref in _refs(answer.get("content", {}).get("application/json", {}).get("schema", {}))
    }
    return _table("Answers", ("Status", "Meaning", "Headers"), rows) + "".join(shapes.values())


def _refs(schema: Object) -> list[str]:
    return [part["$ref"] for part in schema.get("anyOf", [schema]) if "$ref" in part]


def _shape(document: Object, ref: Object, title: str, *, opened: bool = False) -> str:
    name = ref["$ref"].rpartition("/")[2]
    shape: Object = document["components"]["schemas"][name]
    rows = [
        [
            f"<code>{escape(field)}</code>{' *' if opened and field in shape.get('required', ()) else ''}",
            escape(json_type(schema)),
            f"<code>{escape(json.dumps(schema['default']))}</code>" if opened and "default" in schema else "",
            _prose(about(schema)),
        ]
        for field, schema in shape["properties"].items()
    ]
    fields = _table("", ("Field", "Type", "Default" if opened else "", ""), rows)
    return (
        f"<details{' open' if opened else ''}><summary>{escape(title)}: {escape(name)}</summary>"
        f"{_paragraphs(shape.get('description', ''))}{fields}</details>"
    )


def about(schema: Object) -> str:
    return next(
        (part["description"] for part in (schema, *schema.get("anyOf", ())) if "description" in part), ""
    )


def json_type(schema: Object) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(json_type(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {json_type(schema.get('items', {}))}{_bounds(schema, 'minItems', 'maxItems')}"
    kind = schema.get("format") or schema.get("type") or "any JSON"
    characters = _bounds(schema, "minLength", "maxLength")
    return f"{kind}{characters and f'{characters} characters'}{_bounds(schema, 'minimum', 'maximum')}"


def _bounds(schema: Object, low: str, high: str) -> str:
    least, most = schema.get(low), schema.get(high)
    if most is None:
        return ""
    return f", at most {most:,.0f}" if least is None else f", {least:,.0f} to {most:,.0f}"


def _problems(document: Object) -> str:
    """Where the `type` of every problem leads."""
    kinds = {kind.code: kind for kind in KINDS.values()}.values()
    rows = [
        [
            f"<code id={kind.code}>{kind.code}</code>",
            str(kind.status),
            escape(kind.title),
            _prose(kind.detail or ""),
        ]
        for kind in kinds
    ]
    table = _table("", ("Code", "Status", "Means", ""), rows)
    return f"<section id=problems><h2>Problems</h2>{table}{_shape(document, {'$ref': 'Problem'}, 'Every problem')}</section>"


def _table(title: str, heads: Sequence[str], rows: Rows) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    caption = f"<h4>{escape(title)}</h4>" if title else ""
    return f"{caption}<table><thead><tr>{head}</thead><tbody>{body}</tbody></table>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_prose(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _prose(text: str) -> str:
    """Text with `code` in it."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
