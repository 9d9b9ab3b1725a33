"""19.5.3: stopping without losing a request.

The file is imported and served by uvicorn, so what it does on a signal has to be in its app (the lifespan, a signal
handler set there, a middleware), not under `if __name__ == "__main__":`.

Readings accepted: a 503, or a connection that is refused or closed, for who comes too late; any timeout up to two
minutes, and any end of the request that runs into it; exit status 0, 143 or -15 after SIGTERM, and 130, -2 or 1 after
Ctrl-C. That HTTP clients are closed is seen by their connections. Flushing logs is not judged: most handlers write
every line at once, and have nothing to flush.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours answers readiness with 503 and liveness with 200 while it drains: who tells your load balancer?"

BULLETS = [f"19.5.3 bullet {number}" for number in range(1, 5)]
GONE_S = 5.0  # real seconds in which a process with nothing to do has to be gone
HEARD_S = 0.3
THINKS_S = 0.5  # the model, from SIGTERM on
ARRIVED_S = 10.0
SIGTERM_STATUSES = (0, 143, -15)
CTRL_C_STATUSES = (0, 130, -2, 1)


@contextlib.contextmanager
def under_way(app: App, count: int) -> Iterator[tuple[list[Future[Exchange]], Callable[[], None]]]:
    """Send requests, and go on when all of them are at the model: it answers once the function given along is called.

    Who comes later is answered at once.
    """
    stand_in, answered = app.model.model, threading.Event()
    stand_in.may_answer = answered.is_set
    stand_in.calls.clear()
    pool = ThreadPoolExecutor(count)
    try:
        sent = [pool.submit(app.chat, f"What is {number} + 1000?") for number in range(count)]
        deadline = time.monotonic() + ARRIVED_S
        while len(stand_in.calls) < count:
            if time.monotonic() > deadline:
                raise NotChecked(f"only {len(stand_in.calls)} of {count} requests reached the model")
            time.sleep(0.01)
        stand_in.may_answer = None
        yield sent, answered.set
    finally:
        stand_in.may_answer = None
        answered.set()
        pool.shutdown(wait=False)


def said(status: int | None) -> str:
    return "still there" if status is None else f"exit status {status}"


@check(
    "Stop accepting new requests",
    chapter=BULLETS[0],
    needs={"signals", "llm"},
    hints=(
        "From SIGTERM on, a new request is refused: with a 503, while the ones in progress go on.",
        "Set shutdown_requested in the signal handler, and look at it before every request. request_started() raises "
        "RuntimeError: somebody has to turn that into a 503.",
        'except RuntimeError: raise HTTPException(503, "shutting down", headers={"Retry-After": "5"})',
    ),
)
def no_new_requests(app: App) -> None:
    with under_way(app, 1) as (sent, release):
        app.signal(signal.SIGTERM)
        time.sleep(HEARD_S)
        late = app.chat("late")
        release()
        for request in sent:
            request.result()
    expect(
        late.status in (0, 503),
        when=f"a request {HEARD_S} s after SIGTERM, while another one is still in progress",
        expected="a 503 (or a refused connection)",
        seen=late,
    )
    app.close()  # how it ends is another check's question


@check(
    "Wait for in-progress requests to complete (with a timeout)",
    chapter=BULLETS[1],
    needs={"signals", "llm"},
    hints=(
        "Whoever was let in before SIGTERM gets the answer.",
        "uvicorn waits for its requests by itself, if the signal reaches it. Do not exit, raise or cancel in the "
        "handler: set a flag, wait until active_requests is 0, and then let uvicorn go on.",
        "Keep the handler that uvicorn had installed (signal.signal returns it), and call it when the wait is over.",
    ),
)
def in_progress(app: App) -> None:
    with under_way(app, 8) as (sent, release):
        app.signal(signal.SIGTERM)
        time.sleep(THINKS_S)
        release()
        answers = [request.result() for request in sent]
    for number, answer in enumerate(answers):
        expect(
            answer.status == 200 and answer.answered and str(number + 1000) in answer.text,
            when="8 requests in progress, then SIGTERM; the model answers half a second later",
            expected="each of them is answered with 200",
            seen=answer,
        )
    app.close()


@check(
    "Wait for in-progress requests to complete (with a timeout): and not for ever",
    chapter=BULLETS[1],
    needs={"signals", "llm", "clock"},
    hints=(
        "A request that never ends must not keep the process: after the timeout it is over.",
        "Give the wait a deadline (30 s in the chapter), then cancel what is left, so that uvicorn has nothing to wait "
        "for. uvicorn by itself waits for ever.",
        "await asyncio.wait_for(self._idle.wait(), timeout) -- and on TimeoutError: for task in tasks: task.cancel()",
    ),
)
def timeout(app: App) -> None:
    with under_way(app, 1) as (sent, _):
        app.signal(signal.SIGTERM)
        time.sleep(HEARD_S)
        for _ in range(600):  # two minutes in small steps: some count their looks at the requests, not the time
            app.clock.advance(0.2)
            if app.ended:
                break
            time.sleep(0.01)
        status = app.exit_status(GONE_S)
        if status is None:
            app.close()
        came = sent[0].result()
    expect(
        status is not None,
        when="SIGTERM while the model does not answer a request, two minutes later",
        expected="the process is gone: it waits with a timeout",
        came="still there",
        seen=came,
    )


@check(
    "Clean up resources (close HTTP clients, flush logs)",
    chapter=BULLETS[2],
    needs={"signals", "llm"},
    hints=(
        "The client of the model keeps connections open; before the process ends they have to be closed.",
        "What comes after `yield` in the lifespan runs when the server stops: close the client there.",
        "yield; await client.close()   (an httpx.AsyncClient of your own: await http_client.aclose())",
    ),
)
def cleanup(app: App) -> None:
    answer = app.chat()
    if not answer.answered:
        raise NotChecked(f"the chat does not answer: {answer.came()[:100]}")
    app.signal(signal.SIGTERM)
    status = app.exit_status(GONE_S)
    left_open = app.left_open()
    if status is None:
        app.close()
    if left_open is None:
        raise NotChecked(f"the app never got to its clean-up ({said(status)})")
    expect(
        left_open == 0,
        when="one chat, then SIGTERM; after the app's shutdown",
        expected="the HTTP client of the model is closed",
        came=f"{left_open} connection(s) to the model still open",
        seen=answer,
    )


@check(
    "Exit cleanly",
    chapter=BULLETS[3],
    needs={"signals"},
    hints=(
        "After SIGTERM the process has to end, and by itself.",
        "A handler that takes the signal away from uvicorn (loop.add_signal_handler) leaves a server that never stops.",
        "previous = signal.signal(signal.SIGTERM, handler); at the end of your wait: previous(signal.SIGTERM, None)",
    ),
)
def exits(app: App) -> None:
    app.chat()
    app.signal(signal.SIGTERM)
    status = app.exit_status(GONE_S)
    if status is None:
        app.close()
    expect(
        status in SIGTERM_STATUSES,
        when="SIGTERM while no request is in progress",
        expected=f"the process ends within {GONE_S:.0f} s, with exit status 0 or 143",
        came=said(status),
    )


@check(
    "Exit cleanly: also on Ctrl-C",
    chapter=BULLETS[3],
    needs={"signals"},
    hints=(
        "Ctrl-C is SIGINT, and should do what SIGTERM does.",
        "Install your handler for both signals.",
        "for number in (signal.SIGINT, signal.SIGTERM): previous[number] = signal.signal(number, handler)",
    ),
)
def ctrl_c(app: App) -> None:
    app.chat()
    app.signal(signal.SIGINT)
    status = app.exit_status(GONE_S)
    if status is None:
        app.close()
    expect(
        status in CTRL_C_STATUSES,
        when="Ctrl-C (SIGINT) while no request is in progress",
        expected=f"the process ends within {GONE_S:.0f} s",
        came=said(status),
    )
