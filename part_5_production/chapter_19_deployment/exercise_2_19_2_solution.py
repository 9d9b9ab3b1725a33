"""Exercise 2 (19.2): refuse messages that are empty, blank or longer than 1000 characters, and say why.

The book asks for Pydantic to refuse each of the three, with an appropriate message for each. Notice:

* A limit needs a unit: characters, counted as a reader would, after trimming and after putting an accent and its letter
  together (NFC). 1000 emoji pass; a letter typed in two parts counts once.
* Blank is what nobody can see: zero-width spaces and lone control characters, too.
* The answer is a problem detail (RFC 9457): a type for programs, a sentence for people, a pointer to the field. It
  never repeats what was sent: that may be a password, a script, or half a surrogate that no JSON can carry.
* Pydantic sees a body when it has been read. Ten megabytes are refused before, by a few lines of plain ASGI.

Run it:    python exercise_2_19_2_solution.py             (--serve keeps it up)
Check it:  make check EX=19.2.2                           (MINE=your_file.py checks yours)

Limit: it judges form, not meaning; whether a message tries to trick the model is the subject of section 19.7.
FastAPI reads the body before it looks at the key: what is not JSON gets its 400 without one, and no limiter counts it.
"""

import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ModelError, ask
from shared.api import Caller, ChatResponse, base_app, model_error_response, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["BodyLimit", "ChatMessage", "FieldProblem", "Problem", "checked", "field_problems"]

MAX_CHARACTERS = 1000
MOST_PARTS = 4  # no character is written in more parts than this: Unicode's longest canonical decomposition
MAX_BODY_BYTES = 64 * 1024  # 1000 characters take 12 kB at most, written as \\uXXXX\\uXXXX; the rest is for the future
LOOKS_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers that count as letters or symbols
PROBLEM_JSON = "application/problem+json"


def invisible(character: str) -> bool:
    """Tell whether a character shows nothing by itself: spaces, controls, joiners, direction and variation marks."""
    return (
        unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf")
        or "\ufe00" <= character <= "\ufe0f"
        or character in LOOKS_BLANK
    )


def checked(text: str) -> str:
    """Return a message trimmed and in NFC, or raise PydanticCustomError with a type of its own for each refusal."""
    if not text:
        raise PydanticCustomError("message_empty", "The message is empty: write something.")
    if all(map(invisible, text)):
        raise PydanticCustomError("message_blank", "The message holds only spaces and characters that nobody can see.")
    text = text.strip()
    too_long = len(text) > MOST_PARTS * MAX_CHARACTERS  # then NFC cannot help; on 32,000 accents it takes two seconds
    text = text if too_long else unicodedata.normalize("NFC", text)
    if len(text) > MAX_CHARACTERS:
        raise PydanticCustomError(
            "message_too_long",
            "The message has {length} characters; {limit} are allowed.",
            {"length": len(text), "limit": MAX_CHARACTERS},
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" for character in text):
        raise PydanticCustomError("message_unreadable", "The message holds control characters or halves of characters.")
    return text


class ChatMessage(BaseModel):
    """What `/v1/chat` takes; nothing is converted and nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[
        str,
        AfterValidator(checked),
        Field(
            description="counted in characters, after trimming and NFC",
            json_schema_extra={"minLength": 1, "maxLength": MAX_CHARACTERS},
        ),
    ]
    conversation_id: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")


class FieldProblem(BaseModel):
    """What is wrong with one field; `pointer` is a JSON pointer into the body (RFC 6901), "#" the whole of it."""

    pointer: str
    type: str
    detail: str


class Problem(BaseModel):
    """A problem detail (RFC 9457): `type` and `status` for programs, `detail` for people.

    "about:blank" means that there is nothing to know beyond the status.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Turn Pydantic's errors into ours: without the input, and without names that the client has made up."""
    found = []
    for error in errors:
        kind, detail, path = error["type"], error["msg"], error["loc"][1:]
        if kind == "extra_forbidden":  # its path ends in the client's own word
            detail, path = "There is a field that is unknown here.", path[:-1]
        elif kind == "json_invalid":  # its path is a position
            detail, path = "The body is not JSON.", ()
        pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        found.append(FieldProblem(pointer=pointer, type=kind, detail=detail))
    return found


class BodyLimit:
    """ASGI middleware: answers 413 to a body of more than `max_bytes`, whether its length was announced or not.

    A body is held back until it is complete, so `max_bytes` is also the memory that one request can take.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        size = int(announced[:18]) if announced.isdigit() else 0
        body, more = bytearray(), True
        while more and size <= self.max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            size, more = len(body), message.get("more_body", False)
        if size > self.max_bytes:
            await self._refuse(send)
            return
        held: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def held_first() -> Message:
            return held.pop() if held else await receive()

        await self.app(scope, held_first, send)

    async def _refuse(self, send: Send) -> None:
        detail = f"A request may carry {self.max_bytes} bytes."
        told = Problem(type="urn:problem:body-too-large", title="Content Too Large", status=413, detail=detail)
        headers = [(b"content-type", PROBLEM_JSON.encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": told.model_dump_json().encode()})


def problem_details(app: FastAPI) -> None:
    """Give every error of a service the same form."""

    def answer(told: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse(told.model_dump(), told.status, headers, media_type=PROBLEM_JSON)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = field_problems(error.errors())
        status, title = (400, "Not JSON") if found[0].type == "json_invalid" else (422, "Not a valid message")
        detail = "; ".join(each.detail for each in found)
        return answer(Problem(type="urn:problem:invalid", title=title, status=status, detail=detail, errors=found))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        title = responses.get(error.status_code, "Error")
        return answer(Problem(title=title, status=error.status_code, detail=str(error.detail)), error.headers)

    @app.exception_handler(ModelError)
    async def failed(request: Request, error: ModelError) -> JSONResponse:
        plain = await model_error_response(request, error)
        headers = {name: plain.headers[name] for name in ("retry-after",) if name in plain.headers}
        kind = f"urn:problem:{error.code.replace('_', '-')}"
        told = Problem(type=kind, title="The model did not answer", status=plain.status_code, detail=str(error))
        return answer(told, headers)


def create_app(settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None) -> FastAPI:
    """Put the checks before the chat, and give every error of the service the same form."""
    app = base_app(settings, client)
    app.add_middleware(BodyLimit)
    problem_details(app)

    @app.post("/v1/chat", responses=problem_responses(400, 401, 413, 422, 502, 503, 504))
    async def chat(request: Request, body: ChatMessage, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    return app


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe in OpenAPI what these statuses really carry; FastAPI would claim something else for 422."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["FieldProblem"]
    content = {PROBLEM_JSON: {"schema": schema}}
    return {status: {"description": responses[status], "content": content} for status in statuses}


def main(argv: list[str] | None = None) -> int:
    """Send what is fine, and what is refused."""
    tries = {
        "fine": "What is 6 * 7?",
        "empty": "",
        "nothing but spaces and what nobody can see": " \u200b\u00a0 ",
        "one character too many": "x" * 1001,
    }
    steps = [demo.Send("POST", "/v1/chat", {"message": text}, note=note) for note, text in tries.items()]
    steps += [
        demo.Send("POST", "/v1/chat", {"mesage": "hi"}, note="a misspelt field"),
        demo.Send("POST", "/v1/chat", {"message": "x" * 70_000}, note="more than the service will read"),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
