"""The stand-in model: an OpenAI-compatible server, as strict as the real one; its answers are plainly not a model's.

In process:  AsyncOpenAI(http_client=httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel())), ...)
On a port:   python -m shared.offline [--port 8001]   and then   OPENAI_BASE_URL=http://127.0.0.1:8001/v1

It knows chat completions, responses, embeddings and models. It is deterministic: small sums, a name told earlier in the
conversation, facts on a topic, else an echo. Tokens are its own (words and signs), counted from what was really sent.
`next(Fault(...))` makes it fail, `calls` remembers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import math
import operator
import re
import struct
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Container, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from shared.offline_responses import as_messages, as_response, events, without_instructions

CHAT_MODELS = frozenset(
    ("gpt-4o-mini", "gpt-4o", "gpt-4-turbo", "gpt-4", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-3.5-turbo")
)
SAY_LITTLE = re.compile(
    "an?|the|is|are|was|be|do|does|did|s|t|what|how|who|when|where|why|which|can|could|would|will|today|now|please|me|my"
    "|i|you|your|it|of|to|in|on|at|for|and|or"
)
EMBEDDING_MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
REMEMBERED_CALLS = 10_000
REMEMBERED_RESPONSES = 1_000  # that a later request may go on from with `previous_response_id`

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """How the next call goes wrong: late, refused (`status`), unreadable, never answered, or cut off in mid-stream."""

    delay_s: float = 0.0
    status: int = 200
    retry_after_s: int | None = None
    garbage: bool = False
    hang: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Call:
    """One request that reached the stand-in; `messages` is what it asked, whichever API it used."""

    path: str
    body: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)


class BadRequest(Exception):
    """A request that the real API refuses; in its error shape."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        super().__init__(message)


class OfflineModel:
    """The ASGI app. `reply` may be replaced by any function from messages to text; `delay_s` slows every answer."""

    def __init__(self, reply: Callable[[list[dict[str, Any]]], str] | None = None, *, delay_s: float = 0.0) -> None:
        self.reply = reply or answer
        self.embed: Callable[[dict[str, Any]], dict[str, Any]] = embeddings  # may be replaced as `reply` may
        self.delay_s = delay_s
        self.may_answer: Callable[[], bool] | None = None  # a call waits until the one that it found here says so
        self.calls: deque[Call] = deque(maxlen=REMEMBERED_CALLS)
        self._faults: deque[Fault] = deque()
        self._ids = itertools.count(1)
        self._responses: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def next(self, *faults: Fault) -> None:
        """Let the next calls go wrong, one fault each, in this order."""
        self._faults.extend(faults)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, await _read(receive), send)
        except BadRequest as error:  # the same again would be refused again: the SDK need not wait and try
            await _send_json(send, error.status, error.body, [(b"x-should-retry", b"false")])
            return
        if status:
            await _send_json(send, status, body)

    async def _answer(self, scope: MutableMapping[str, Any], raw: bytes, send: Send) -> tuple[int, Any]:
        path, method = scope["path"].removeprefix("/v1"), scope["method"]
        token = dict(scope["headers"]).get(b"authorization", b"")
        if not re.fullmatch(rb"Bearer \S+", token):
            raise BadRequest("You didn't provide an API key.", status=401, code="invalid_api_key")
        if method == "GET" and path == "/models":
            return 200, {"object": "list", "data": [_model(name) for name in (*CHAT_MODELS, *EMBEDDING_MODELS)]}
        if method == "GET" and path.startswith("/models/"):
            return 200, _model(_known(path.removeprefix("/models/"), {*CHAT_MODELS, *EMBEDDING_MODELS}))
        if method != "POST" or path not in ("/chat/completions", "/responses", "/embeddings"):
            raise BadRequest(f"Unknown request URL: {method} {scope['path']}.", status=404, code="unknown_url")
        try:
            body = json.loads(raw)
        except ValueError:
            raise BadRequest("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise BadRequest("The body must be a JSON object.")
        messages = self._asked(path, body)
        self.calls.append(Call(path, body, messages))

        fault, may_answer = self._faults.popleft() if self._faults else Fault(), self.may_answer
        await asyncio.sleep(self.delay_s + fault.delay_s)
        while may_answer and not may_answer():  # noqa: ASYNC110  (another thread may say so)
            await asyncio.sleep(0.005)
        if fault.hang:
            await asyncio.Event().wait()
        if fault.status != 200:
            code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
            error = BadRequest("The stand-in was told to fail.", status=fault.status, code=code)
            extra = [] if fault.retry_after_s is None else [(b"retry-after", str(fault.retry_after_s).encode())]
            await _send_json(send, fault.status, error.body, extra)
            return 0, None
        if fault.garbage:
            await _send_json(send, 200, "<html>not JSON")
            return 0, None
        if path == "/embeddings":
            return 200, self.embed(body)
        if path == "/responses" and (unknown := _unknown_earlier(body, self._responses)):
            raise BadRequest(f"Previous response with id '{unknown}' not found.", param="previous_response_id")
        completion = self._completion(body | {"messages": messages})
        answered = self._respond(body, messages, completion) if path == "/responses" else completion
        if not body.get("stream"):
            return 200, answered
        if path == "/responses":
            await _send_events(send, answered, cut=fault.cut)
        else:
            await _send_stream(send, body, completion, cut=fault.cut)
        return 0, None

    def _asked(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if path == "/responses":
            return as_messages(body, self._responses.get(str(body.get("previous_response_id")), []))
        messages = body.get("messages")
        return messages if isinstance(messages, list) else []

    def _respond(
        self, body: dict[str, Any], messages: list[dict[str, Any]], completion: dict[str, Any]
    ) -> dict[str, Any]:
        response = as_response(completion, body)
        if response["store"]:
            said = {"role": "assistant", "content": response["output"][0]["content"][0]["text"]}
            self._responses[response["id"]] = [*without_instructions(messages, body), said]
            while len(self._responses) > REMEMBERED_RESPONSES:
                self._responses.popitem(last=False)
        return response

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        model = _known(body.get("model"), CHAT_MODELS)
        messages = _messages(body.get("messages"), "input" if "input" in body else "messages")
        text = self.reply(messages)
        prompt, completion = sum(map(_tokens, map(text_of, messages))), _tokens(text)
        return {
            "id": f"chatcmpl-stand-in-{next(self._ids)}",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
        }


# ---------------------------------------------------------------- what it says


def answer(messages: list[dict[str, Any]]) -> str:
    """Say something useful enough to read: a sum, a remembered name, facts on a topic, else an echo."""
    said = [text_of(message) for message in messages if message["role"] == "user"]
    question = said[-1] if said else ""
    if sum_ := re.search(r"(-?\d{1,9}(?:\.\d{1,6})?) *([-+*/x]) *(-?\d{1,9}(?:\.\d{1,6})?)", question):
        left, sign, right = sum_.groups()
        return f"[stand-in] {left} {sign} {right} = {_calculate(float(left), sign, float(right))}"
    if re.search(r"\bwhat(?:'s| is) my name\b", question, re.IGNORECASE):
        for earlier in reversed(said):
            if name := re.search(r"\b(?:my name is|i am|i'm) +(\w{1,40})", earlier, re.IGNORECASE):
                return f"[stand-in] Your name is {name[1]}."
        return "[stand-in] You have not told me your name."
    if topic := re.search(r"\bfacts (?:about|on) +([^.?!\n]{1,80})", question, re.IGNORECASE):
        return f"[stand-in] 1. {topic[1]} has a history. 2. {topic[1]} has a cost. 3. {topic[1]} has alternatives."
    return f"[stand-in] You said: {question[:200]}"


def _calculate(left: float, sign: str, right: float) -> str:
    work = {"+": operator.add, "-": operator.sub, "*": operator.mul, "x": operator.mul, "/": operator.truediv}
    return "undefined" if sign == "/" and right == 0 else f"{work[sign](left, right):.12g}"


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Embed by hashed words and letter triples: alike spelling gives alike vectors, and meaning gives nothing.

    Words that say little weigh little, so that "What's the weather?" and "How's the weather today?" score 0.89, as with
    embedders that were trained (0.81 with all-MiniLM-L6-v2).
    """
    model = _known(body.get("model"), EMBEDDING_MODELS)
    inputs = body.get("input")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts or not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise BadRequest("'input' must be a non-empty string or a list of non-empty strings.", param="input")
    size = body.get("dimensions", EMBEDDING_MODELS[model])
    if not isinstance(size, int) or not 1 <= size <= EMBEDDING_MODELS[model]:
        raise BadRequest(f"'dimensions' must be from 1 to {EMBEDDING_MODELS[model]}.", param="dimensions")
    as_base64 = body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = _hashed(text, size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if as_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": packed})
    used = sum(map(_tokens, texts))
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": used, "total_tokens": used}}


def _hashed(text: str, size: int) -> list[float]:
    words = re.findall(r"\w+", text.lower())
    vector = [0.0] * size
    for word in words:
        weight = 0.4 if SAY_LITTLE.fullmatch(word) else 1.0
        for feature in (word, *re.findall("(?=(...))", f" {word} ")):
            digest = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
            vector[digest % size] += weight if digest >> 63 else -weight
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]


# ---------------------------------------------------------------- the wire


def text_of(message: dict[str, Any]) -> str:
    """Return a message's text, which may come as a string or in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def _known(model: Any, models: Any) -> str:
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter")
    if model not in models:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise BadRequest(message, status=404, code="model_not_found")
    return model


def _unknown_earlier(body: dict[str, Any], known: Container[str]) -> str | None:
    earlier = body.get("previous_response_id")
    return None if earlier is None or earlier in known else str(earlier)


def _messages(messages: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest(f"'{what}' must be a non-empty list.", param=what)
    for index, message in enumerate(messages):
        param = f"{what}[{index}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadRequest(f"Invalid value: '{param}.role' must be one of {sorted(ROLES)}.", param=f"{param}.role")
        content = message.get("content")
        parts = content if isinstance(content, list) else [] if content is None else [{"text": content}]
        if not all(isinstance(part, dict) and isinstance(part.get("text", ""), str) for part in parts):
            raise BadRequest(f"Invalid type for '{param}.content'.", param=f"{param}.content")
        if content is None and not (message["role"] == "assistant" and message.get("tool_calls")):
            raise BadRequest(f"Missing required parameter: '{param}.content'.", param=f"{param}.content")
    return messages


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "stand-in"}


async def _read(receive: Receive) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _send_json(send: Send, status: int, body: Any, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _send_stream(send: Send, body: dict[str, Any], completion: dict[str, Any], *, cut: bool) -> None:
    """Send the completion word by word, as server-sent events; `cut` hangs up after the first word."""
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    base = {key: completion[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    async def event(delta: dict[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        await chunk(base | {"choices": [choice]} | ({"usage": None} if with_usage else {}))

    async def chunk(data: Any) -> None:
        line = data if isinstance(data, str) else json.dumps(data)
        await send({"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": True})

    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await event({"role": "assistant", "content": "", "refusal": None})
    for word in re.findall(r"\S+\s*", completion["choices"][0]["message"]["content"]):
        await event({"content": word})
        if cut:
            raise ConnectionResetError("the stand-in was told to cut the stream")
    await event({}, "stop")
    if with_usage:
        await chunk(base | {"choices": [], "usage": completion["usage"]})
    await chunk("[DONE]")
    await send({"type": "http.response.body", "body": b""})


async def _send_events(send: Send, response: dict[str, Any], *, cut: bool) -> None:
    """Send the events of a response; `cut` hangs up after the first word."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for data in events(response):
        line = f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"
        await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
        if cut and data["type"] == "response.output_text.delta":
            raise ConnectionResetError("the stand-in was told to cut the stream")
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve the stand-in on a port."""
    import argparse

    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m shared.offline", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="let every answer take this long")
    args = parser.parse_args()
    uvicorn.run(OfflineModel(delay_s=args.delay), port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
