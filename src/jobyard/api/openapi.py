"""The table of routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from jobyard.api.exchange import PROBLEM_JSON
from jobyard.api.problems import (
    BadRequest,
    HeadersTooLarge,
    Misdirected,
    Problem,
    TooSlow,
    Unauthenticated,
    Unexpected,
    UriTooLong,
    kind_of,
)
from jobyard.api.route import Header, Reply, Route, Shape
from jobyard.domain.errors import JobyardError, Overloaded

Object = dict[str, Any]

SCHEMA_PLACE = "#/components/schemas/{name}"
PROBLEM = {"$ref": SCHEMA_PLACE.format(name="Problem")}
INTRODUCTION = """An event-driven job backend: create a job over HTTP, get its id at once, watch it run.

Bodies and answers are JSON with camelCase names; fields that are not known are refused. Times are RFC 3339: given \
with a zone, answered in UTC with 6 decimals. Lists are newest first, in pages. Errors are problems as RFC 9457 has \
them, with a stable `code`.

A body is checked in this order: content type, size (a payload of 1 MiB unless the server is set otherwise), UTF-8, JSON \
and its depth (64 levels; in a bulk of each job), numbers (no further than a double reaches) and strings (neither U+0000 nor \
half of a surrogate pair, in keys as well), and last the schema, all of whose faults are named together."""

RETRY_AFTER = Header("Retry-After", "Seconds after which to try again.", "1")
REQUEST_ID = Header(
    "X-Request-Id",
    "Yours if you sent one, else a new one; it stands in the server's log.",
    "5f0c9a1e2b3d4c6f",
)

ANY: tuple[type[JobyardError], ...] = (
    BadRequest,
    TooSlow,
    UriTooLong,
    HeadersTooLarge,
    Overloaded,
    Unexpected,
)
"""What can befall every request."""

_PARAMETER = re.compile(r"\{(\w+)\}")


def document(routes: Sequence[Route], *, guarded: bool) -> Object:
    """`guarded`: a key is set, so every route but those that are open asks for it."""
    schemas = _Schemas(routes)
    paths: dict[str, Object] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, guarded)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Jobyard",
            "version": version("jobyard"),
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "JOBYARD_KEY of the server, where one is set.",
                },
                "browser": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The key as the password of any name: so that a browser can ask for it.",
                },
            },
        },
    }


class _Schemas:
    """The JSON schema of every shape that a route names."""

    def __init__(self, routes: Iterable[Route]) -> None:
        shapes: list[Shape] = list(
            dict.fromkeys([Problem, *(shape for route in routes for shape in _shapes(route))])
        )
        refs, self.components = msgspec.json.schema_components(shapes, ref_template=SCHEMA_PLACE)
        self._refs = dict(zip(shapes, refs, strict=True))

    def of(self, shapes: Sequence[Shape]) -> Object:
        refs = [self._refs[shape] for shape in shapes]
        return refs[0] if len(refs) == 1 else {"anyOf": refs}

    def fields(self, shape: Shape) -> Object:
        """A query's parameters; its schema is no component, since no body has it."""
        return self.components[self._refs[shape]["$ref"].rsplit("/", 1)[1]]


def _shapes(route: Route) -> Iterable[Shape]:
    yield from (shape for shape in (route.body, route.query) if shape is not None)
    for reply in route.answers.values():
        yield from reply.shapes


def _operation(route: Route, schemas: _Schemas, guarded: bool) -> Object:
    operation: Object = {
        "operationId": route.endpoint.__name__,
        "summary": route.summary,
        "description": route.description,
        "tags": [route.tag],
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(route, schemas),
            *_header_parameters(route),
        ],
        "responses": _together(_answers(route, schemas), _problems(route, guarded)),
    }
    if guarded and not route.is_open:
        operation["security"] = [{"key": []}, *([{"browser": []}] if route.for_browsers else [])]
    if route.body is not None:
        media: Object = {"schema": schemas.of([route.body])}
        if route.body_example is not None:
            media["example"] = msgspec.json.decode(route.body_example)
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    return operation


def _path_parameters(route: Route) -> list[Object]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        for name in _PARAMETER.findall(route.path)
    ]


def _query_parameters(route: Route, schemas: _Schemas) -> list[Object]:
    if route.query is None:
        return []
    fields = schemas.fields(route.query)["properties"]
    return [_query_parameter(name, schema) for name, schema in fields.items()]


def _query_parameter(name: str, schema: Object) -> Object:
    # A parameter that is not given is absent, never null.
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    bare = choices[0] if len(choices) == 1 else schema
    if bare.get("type") == "object":
        # `metadata.K=V`: OpenAPI has no style with a dot, so it is said in words.
        return {
            "name": f"{name}.K",
            "in": "query",
            "required": False,
            "description": f"`{name}.order=17` asks for the pair `order`: `17`. Any name in place of K, several times.",
            "schema": {"type": "string"},
        }
    parameter: Object = {"name": name, "in": "query", "required": False, "schema": bare}
    if "description" in bare:
        parameter["description"] = bare["description"]
    return parameter


def _header_parameters(route: Route) -> list[Object]:
    return [
        {
            "name": header.name,
            "in": "header",
            "required": False,
            "description": header.about,
            "schema": {"type": "string"} | ({"pattern": header.pattern} if header.pattern else {}),
            "example": header.example,
        }
        for header in route.headers
    ]


def _together(answers: Object, problems: Object) -> Object:
    """One status may be an answer and a problem, told apart by its media type."""
    for status in answers.keys() & problems.keys():
        answer, problem = answers[status], problems[status]
        problems[status] = {
            "description": f"{answer['description']} {problem['description']}",
            "headers": answer["headers"] | problem["headers"],
            "content": answer["content"] | problem["content"],
        }
    return answers | problems


def _answers(route: Route, schemas: _Schemas) -> Object:
    return {str(status): _answer(reply, schemas) for status, reply in route.answers.items()}


def _answer(reply: Reply, schemas: _Schemas) -> Object:
    answer: Object = {"description": reply.about, "headers": _headers(*reply.headers, REQUEST_ID)}
    if reply.shapes:
        answer["content"] = {"application/json": {"schema": schemas.of(reply.shapes)}}
    elif reply.media is not None:
        answer["content"] = {
            reply.media: {"schema": {"type": "string"} if reply.media != "application/json" else {}}
        }
    return answer


def _headers(*headers: Header) -> Object:
    return {
        header.name: {"description": header.about, "schema": {"type": "string"}, "example": header.example}
        for header in headers
    }


def problems_of(route: Route, *, guarded: bool) -> tuple[type[JobyardError], ...]:
    """What the route names, and what can befall any."""
    guard = () if route.is_open else (Unauthenticated,) if guarded else (Misdirected,)
    return tuple(dict.fromkeys((*route.problems, *guard, *ANY)))


def _problems(route: Route, guarded: bool) -> Object:
    by_status: dict[int, list[type[JobyardError]]] = {}
    for error in problems_of(route, guarded=guarded):
        by_status.setdefault(kind_of(error).status, []).append(error)
    return {str(status): _problem(errors) for status, errors in sorted(by_status.items())}


def _problem(errors: Sequence[type[JobyardError]]) -> Object:
    kinds = [kind_of(error) for error in errors]
    return {
        "description": " ".join(f"`{kind.code}`: {kind.title}." for kind in kinds),
        "headers": _headers(*((RETRY_AFTER,) if kinds[0].retry_after else ()), REQUEST_ID),
        "content": {
            PROBLEM_JSON.decode(): {
                "schema": PROBLEM,
                "examples": {
                    kind.code: {"value": _example(error)} for error, kind in zip(errors, kinds, strict=True)
                },
            }
        },
    }


def _example(error: type[JobyardError]) -> Object:
    kind = kind_of(error)
    return {
        "type": f"/docs#{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": kind.detail or kind.title,
    }
