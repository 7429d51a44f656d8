"""Request parameters as Rails reads them: ``a[b]=1`` and ``a[]=1``, from the query and from a form or JSON body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

import orjson

from services.sandbox.canvas import errors

Parameters = dict[str, Any]
_FALSE = ("", "0", "f", "false", "off", "n", "no")


def merged(query: Sequence[tuple[str, str]], content_type: str, body: bytes) -> Parameters:
    """One tree of parameters; the query wins over the body."""
    return _body(content_type, body) | nested(query)


def _body(content_type: str, body: bytes) -> Parameters:
    media_type = content_type.partition(";")[0].strip().lower()
    if not body:
        return {}
    if media_type == "multipart/form-data":
        return nested(list(_parts(content_type, body)))
    if media_type == "application/x-www-form-urlencoded":
        return nested(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    if media_type == "application/json":
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise errors.bad_request() from error
        return content if isinstance(content, dict) else {}
    return {}


def _parts(content_type: str, body: bytes) -> Iterator[tuple[str, str]]:
    """The fields of a multipart form, as ``curl -F`` sends it; a file is its text."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            yield name, content.decode(errors="replace")


def nested(pairs: Sequence[tuple[str, str]]) -> Parameters:
    """``[("a[b]", "1"), ("c[]", "2")]`` → ``{"a": {"b": "1"}, "c": ["2"]}``."""
    tree: Parameters = {}
    for name, value in pairs:
        first, _, rest = name.partition("[")
        path = [first, *(part.removesuffix("]") for part in rest.split("["))] if rest else [first]
        _put(tree, path, value)
    return tree


def _put(tree: Parameters, path: list[str], value: str) -> None:
    for position, name in enumerate(path[:-1]):
        if path[position + 1] == "" and position + 2 == len(path):
            tree.setdefault(name, []).append(value)
            return
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def text(parameters: Parameters, name: str) -> str | None:
    """A single value as text; None when missing or blank."""
    value = parameters.get(name)
    if value is None or isinstance(value, (list, dict)):
        return None
    return str(value).strip() or None


def texts(parameters: Parameters, name: str) -> list[str]:
    """One or many values as texts: ``state=x``, ``state[]=x&state[]=y`` and JSON lists alike."""
    value = parameters.get(name)
    if value is None or isinstance(value, dict):
        return []
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def tree(parameters: Parameters, name: str) -> Parameters:
    """A nested hash, empty when missing."""
    value = parameters.get(name)
    return value if isinstance(value, dict) else {}


def boolean(value: object) -> bool:
    """``value_to_boolean`` (``lib/canvas/plugins`` and friends): anything that is not a no."""
    return value is not None and str(value).strip().lower() not in _FALSE


def moment(value: object) -> datetime | None:
    """A date; None when blank or unreadable."""
    try:
        parsed = datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed
