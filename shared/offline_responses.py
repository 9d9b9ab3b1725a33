"""The stand-in's `/v1/responses`: the newer API of the SDK, translated to and from a chat completion.

Wire format: the types in `openai.types.responses`. Text only; a function's call and its result are carried along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TEXT_PARTS = frozenset(("input_text", "output_text", "text"))


def as_messages(body: dict[str, Any], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a request's input as chat messages, after those of the response that it goes on from.

    What is no valid input stays as it is, for the check of the messages to refuse.
    """
    instructions, given = body.get("instructions"), body.get("input")
    first = [] if instructions is None else [{"role": "system", "content": instructions}]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        return []
    return first + earlier + [_as_message(item) for item in items]


def without_instructions(messages: list[dict[str, Any]], body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a later request goes on from: the API does not carry instructions over."""
    return messages if body.get("instructions") is None else messages[1:]


def _as_message(item: Any) -> Any:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "function_call":
        return {"role": "assistant", "content": f"{item.get('name')}({item.get('arguments')})"}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    if kind != "message":
        return item
    content = item.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = [part if part.get("type") in TEXT_PARTS else part | {"text": ""} for part in content]
    return {"role": item.get("role"), "content": content}


def as_response(completion: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return a chat completion in the shape of a response."""
    number = completion["id"].rpartition("-")[2]
    return {
        "id": f"resp_stand_in_{number}",
        "object": "response",
        "created_at": completion["created"],
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": completion["model"],
        "output": [_message(f"msg_stand_in_{number}", completion["choices"][0]["message"]["content"])],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(completion.get("usage")),
    }


def _usage(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _message(id_: str, text: str | None) -> dict[str, Any]:
    status, content = ("in_progress", []) if text is None else ("completed", [_part(text)])
    return {"id": id_, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed response, word by word."""
    message = response["output"][0]
    text = message["content"][0]["text"]
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    item = {"output_index": 0}
    part = item | {"item_id": message["id"], "content_index": 0}
    order: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
        ("output_item.added", item | {"item": _message(message["id"], None)}),
        ("content_part.added", part | {"part": _part("")}),
        *(("output_text.delta", part | {"delta": word, "logprobs": []}) for word in re.findall(r"\S+\s*", text)),
        ("output_text.done", part | {"text": text, "logprobs": []}),
        ("content_part.done", part | {"part": _part(text)}),
        ("output_item.done", item | {"item": message}),
        ("completed", {"response": response}),
    ]
    for number, (kind, data) in enumerate(order):
        yield {"type": f"response.{kind}", "sequence_number": number, **data}
