"""A clock that can be moved: eight shared bytes hold an offset that the target adds to every clock it reads.

Offset, never freeze: time goes on, so asyncio keeps running, and a window of 60 seconds takes no time to pass.
The target patches its clocks before it imports anything of the learner's, so every idiom is covered: `time.time`,
`from time import monotonic`, `datetime.now`, `loop.time()`, `time.strftime`, `time.sleep`.

This file is also run inside the target's process: standard library only.
"""

from __future__ import annotations

import datetime
import mmap
import queue
import selectors
import struct
import threading
import time
from datetime import date as RealDate
from datetime import datetime as RealDatetime
from pathlib import Path
from typing import Any

_FORMAT = "<d"
_SLEEP_SLICE_S = 0.02


class Clock:
    """The eight bytes, seen from either side; `path` is handed to the target."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(struct.pack(_FORMAT, 0.0))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), struct.calcsize(_FORMAT))

    @property
    def offset(self) -> float:
        """Seconds that the target's clocks are ahead of ours."""
        return float(struct.unpack(_FORMAT, self._bytes[:])[0])

    def advance(self, seconds: float) -> None:
        """Move every clock of the target forward."""
        self._bytes[:] = struct.pack(_FORMAT, self.offset + seconds)

    def time(self) -> float:
        """Return the wall-clock time that the target sees."""
        return time.time() + self.offset

    def new_minute(self) -> None:
        """Go to one second past a full minute, at least an hour on: whatever was counted is forgotten."""
        self.advance(3600)
        self.advance(60 - self.time() % 60 + 1)

    def close(self) -> None:
        """Let go of the shared bytes."""
        self._bytes.close()


class _Offset:
    """What the patched clocks add; zero until a target attaches its bytes."""

    clock: Clock | None = None

    def __call__(self) -> float:
        return self.clock.offset if self.clock else 0.0


def install() -> _Offset:
    """Patch the clocks of this process; returns the offset, to which a Clock is attached later."""
    offset = _Offset()
    real: dict[str, Any] = {name: getattr(time, name) for name in dir(time)}

    def patch(name: str, moved: Any) -> None:
        # as a builtin, it stays a function where a class holds it: logging.Formatter.converter is time.localtime
        setattr(time, name, staticmethod(moved))

    for name in ("time", "monotonic", "perf_counter"):
        patch(name, lambda read=real[name]: read() + offset())
        patch(f"{name}_ns", lambda read=real[f"{name}_ns"]: read() + int(offset() * 1e9))
    for name in ("localtime", "gmtime", "ctime"):
        patch(name, lambda seconds=None, f=real[name]: f(time.time() if seconds is None else seconds))
    patch("strftime", lambda format, t=None: real["strftime"](format, time.localtime() if t is None else t))
    patch("asctime", lambda t=None: real["asctime"](time.localtime() if t is None else t))

    def sleep(seconds: Any) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            real["sleep"](min(left, _SLEEP_SLICE_S))

    patch("sleep", sleep)
    _wait_in_slices()
    return offset


def _wait_in_slices() -> None:
    """Let event loops, and threads that wait with a timeout, look at the clock often: it may have been moved."""
    selector, condition = selectors.DefaultSelector, threading.Condition
    select, wait = selector.select, condition.wait

    def select_slice(self: Any, timeout: float | None = None) -> Any:
        return select(self, timeout if timeout is None else min(timeout, _SLEEP_SLICE_S))

    def wait_in_slices(self: Any, timeout: float | None = None) -> bool:
        if timeout is None:
            return wait(self)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > _SLEEP_SLICE_S:
            if wait(self, _SLEEP_SLICE_S):
                return True
        return wait(self, max(left, 0.0))

    selector.select, condition.wait = select_slice, wait_in_slices  # type: ignore[method-assign]
    threading._time = queue.time = lambda: time.monotonic()  # type: ignore[attr-defined]  # both keep the real one


def install_datetime() -> None:
    """Patch `datetime` and `date`, after the libraries are imported: some derive classes of their own from them."""
    from pydantic_core import core_schema

    class AnyDatetime(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, RealDatetime)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, RealDatetime)

    class MovedDatetime(RealDatetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return RealDatetime.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return RealDatetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return RealDatetime.fromtimestamp(time.time())

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.datetime_schema()

    class AnyDate(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, RealDate)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, RealDate)

    class MovedDate(RealDate, metaclass=AnyDate):
        @classmethod
        def today(cls) -> Any:
            return RealDate.fromtimestamp(time.time())

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.date_schema()

    MovedDatetime.__name__ = MovedDatetime.__qualname__ = "datetime"
    MovedDate.__name__ = MovedDate.__qualname__ = "date"
    MovedDatetime.__module__ = MovedDate.__module__ = "datetime"
    datetime.datetime, datetime.date = MovedDatetime, MovedDate  # type: ignore[misc]
