"""The part of JSON Schema that `extract` checks answers with. A keyword that is not checked is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qwen3vl.errors import InvalidParams

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_SAID = ("title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions", "$comment", "format")
_CHECKED = (
    *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "oneOf", "allOf"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "$ref"),
)


def check_schema(schema: Any, where: str = "schema") -> None:
    """Raises InvalidParams naming the first keyword that `problems` would not check."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise InvalidParams(f"{where} must be an object, not {schema!r}")
    for keyword, value in schema.items():
        if keyword not in (*_SAID, *_CHECKED):
            raise InvalidParams(f"{where}: the JSON Schema keyword {keyword!r} is not supported")
        inner: Mapping[str, Any] = {}
        if keyword in ("properties", "$defs", "definitions"):
            inner = value
        elif keyword in ("anyOf", "oneOf", "allOf"):
            inner = {str(i): v for i, v in enumerate(value)}
        elif keyword == "items" or (keyword == "additionalProperties" and not isinstance(value, bool)):
            inner = {"": value}
        for name, child in inner.items():
            check_schema(child, f"{where}/{keyword}/{name}")


def problems(value: Any, schema: Any, root: Any = None, where: str = "answer") -> list[str]:
    """What in `value` breaks `schema`, each with its place; empty if nothing does."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return [] if schema else [f"{where} is not allowed"]
    if "$ref" in schema:
        return problems(value, _resolve(schema["$ref"], root), root, where)
    found = _combined(value, schema, root, where)
    types = schema.get("type")
    if types is not None and not any(_is(value, t) for t in ([types] if isinstance(types, str) else types)):
        return [*found, f"{where} must be {types}, not {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} must be one of {schema['enum']}, not {value!r}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{where} must be {schema['const']!r}, not {value!r}")
    return found + _bounds(value, schema, where) + _inside(value, schema, root, where)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name]) or (name == "integer" and isinstance(value, float) and value.is_integer())


def _combined(value: Any, schema: Mapping[str, Any], root: Any, where: str) -> list[str]:
    found = [p for part in schema.get("allOf", ()) for p in problems(value, part, root, where)]
    for keyword in ("anyOf", "oneOf"):
        results: list[list[str]] = [problems(value, part, root, where) for part in schema.get(keyword, ())]
        if results and all(results):
            found += sorted(results, key=len)[0]
        elif keyword == "oneOf" and sum(not r for r in results) > 1:
            found.append(f"{where} fits more than one of oneOf")
    return found


def _bounds(value: Any, schema: Mapping[str, Any], where: str) -> list[str]:
    found = []
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            found.append(f"{where} = {value} is below {schema['minimum']}")
        if value > schema.get("maximum", value):
            found.append(f"{where} = {value} is above {schema['maximum']}")
    for kind, low, high in ((str, "minLength", "maxLength"), (list, "minItems", "maxItems")):
        if isinstance(value, kind) and not schema.get(low, 0) <= len(value) <= schema.get(high, len(value)):
            found.append(f"{where} has the length {len(value)}")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where} = {value!r} does not match {schema['pattern']!r}")
    return found


def _inside(value: Any, schema: Mapping[str, Any], root: Any, where: str) -> list[str]:
    found = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        extra = schema.get("additionalProperties", True)
        for name, inner in value.items():
            found += problems(inner, properties.get(name, extra), root, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            found += problems(inner, schema["items"], root, f"{where}[{index}]")
    return found


def _resolve(reference: str, root: Any) -> Any:
    target = root
    if not reference.startswith("#"):
        raise InvalidParams(f"the reference {reference!r} leads out of the schema")
    for name in reference.lstrip("#/").split("/"):
        if not isinstance(target, Mapping) or name not in target:
            raise InvalidParams(f"the reference {reference!r} leads nowhere")
        target = target[name]
    return target
