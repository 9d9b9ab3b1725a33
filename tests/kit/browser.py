"""A headless Chromium for tests of pages, spoken to over a pipe (the DevTools protocol); no package is needed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

WAIT_MS = 15_000
BROWSER_S = 60.0  # then it is gone, and the test fails
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A headless Chromium, spoken to over a pipe."""

    def __init__(self, folder: Path) -> None:
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        flags = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={folder}",
        )  # fmt: skip
        script = f"exec {CHROMIUM} {' '.join(flags)} about:blank 3<&{theirs_in} 4>&{theirs_out}"
        self._sockets = tempfile.TemporaryDirectory(prefix="browser-")  # a short path: it is a socket's
        self._process = subprocess.Popen(
            ["bash", "-c", script], pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(folder), "TMPDIR": self._sockets.name},
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._patience = threading.Timer(BROWSER_S, self._process.kill)
        self._patience.start()
        self._ids, self._rest, self.events = itertools.count(1), b"", list[Any]()
        self._session: dict[str, str] = {}
        page = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params} | self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "result" in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> Any:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        self("Page.navigate", url=url)
        while self.run("document.readyState === 'complete' && location.href") != url:
            time.sleep(0.01)

    def run(self, script: str) -> Any:
        return self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        self._patience.cancel()
        self._process.kill()
        self._process.wait()
        self._sockets.cleanup()
        os.close(self._in)
        os.close(self._out)

    def until(self, condition: str) -> None:
        """Wait until a condition holds in the page."""
        look = f"const look = () => {condition} ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20)"
        waited = self.run(f"new Promise(done => {{ const end = Date.now() + {WAIT_MS}; {look}; look(); }})")
        assert waited is True, f"{condition}; the page says: {self.run('document.body.innerText')}"

    def resize(self, width: int, *, height: int = 740, dark: bool = False) -> None:
        """Become a phone (below 500 pixels) or a desktop, with light or dark colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key (Tab, Enter)."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
            self("Input.dispatchKeyEvent", type=kind, text=text if kind == "keyDown" else "", **about)

    def troubles(self) -> list[str]:
        """Return what the browser complained about: errors, violations of the policy, exceptions."""
        self.run("0")  # what was on its way has come
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown")
        said = [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]
        printed = (e["params"] for e in self.events if e.get("method") == "Runtime.consoleAPICalled")
        return said + [json.dumps(each) for each in printed if each["type"] in ("error", "warning")]

    def names(self) -> set[tuple[str, str]]:
        """Return what a screen reader finds: roles and names."""
        self("Accessibility.enable")
        nodes = self("Accessibility.getFullAXTree")["nodes"]
        return {(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if "role" in n}

    def too_faint(self) -> list[str]:
        """Return the texts with less contrast than WCAG 2.2 asks for (4.5:1), as the browser colours them."""
        found: list[str] = self.run(CONTRAST)
        return found

    def picture(self, name: str) -> None:
        """Save what is seen, where SCREENSHOTS names a folder."""
        if folder := os.environ.get("SCREENSHOTS"):
            data = self("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(data))


# Relative luminance and contrast as in https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio; opacity thins a colour.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colour, under, opacity = 1) => {
    canvas.globalAlpha = 1; canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.globalAlpha = opacity; canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const faint = [];
  for (const element of document.querySelectorAll("body, body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || getComputedStyle(element).clipPath !== "none") continue;
    const chain = []; let opacity = 1;
    for (let each = element; each; each = each.parentElement) chain.unshift(each);
    let ground = dark ? [18, 18, 18] : [255, 255, 255];
    for (const each of chain) {
      const style = getComputedStyle(each);
      ground = over(style.backgroundColor, ground);
      opacity *= style.opacity;
    }
    const ink = over(getComputedStyle(element).color, ground, opacity);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()"""


def opened(folder: Path) -> Iterator[Browser]:
    """Yield a browser for a fixture; without Chromium the test is skipped."""
    if CHROMIUM is None or shutil.which("bash") is None:
        pytest.skip("no Chromium here")
    browser = Browser(folder)
    try:
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def on_a_port(app: FastAPI) -> Iterator[str]:
    """Serve an app from a thread of this process, and yield its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # whoever comes before the server is up waits
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
