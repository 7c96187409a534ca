"""Headless Chromium, steered by the DevTools protocol through pipes."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find() -> str | None:
    """The path of the browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page of a running browser; use `opened`.

    Attributes:
        requested: URLs that the page has asked for, of the network only.
    """

    def __init__(self, inbox: int, outbox: int):
        self.requested: list[str] = []
        self._inbox, self._outbox = inbox, outbox
        self._numbers, self._rest, self._session = itertools.count(1), b'', None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Network', 'DOM', 'Runtime'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **parameters) -> dict:
        """Calls a method of the protocol and returns its result."""
        number = next(self._numbers)
        message = {'id': number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._outbox, json.dumps(message).encode() + b'\0')
        while True:
            received = self._receive(120)
            if received.get('id') == number:
                assert 'error' not in received, received
                return received['result']

    def open(self, url: str, width: int = 1400, height: int = 1000) -> None:
        """Opens an address in a window of a size in pixels."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.call('Page.navigate', url=url)

    def evaluate(self, script: str):
        """The value of a JavaScript expression."""
        found = self.call('Runtime.evaluate', expression=script, returnByValue=True)['result']
        return found.get('value')

    def wait(self, script: str, seconds: float = 120) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f'!!({script})'):
            text = self.evaluate('document.body.innerText')
            assert time.monotonic() < end, f'{script} stays false; the page: {text}'
            time.sleep(0.2)

    def choose_file(self, selector: str, path: str | Path) -> None:
        """Chooses a file for an `input` element."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

    def screenshot(self, path: str | Path) -> None:
        """Writes the whole page as PNG."""
        data = self.call('Page.captureScreenshot', captureBeyondViewport=True)['data']
        Path(path).write_bytes(base64.b64decode(data))

    def _receive(self, seconds: float) -> dict:
        while b'\0' not in self._rest:
            ready, _, _ = select.select([self._inbox], [], [], seconds)
            data = os.read(self._inbox, 1 << 20) if ready else b''
            assert data, 'Chromium does not answer'
            self._rest += data
        line, _, self._rest = self._rest.partition(b'\0')
        message = json.loads(line)
        if message.get('method') == 'Network.requestWillBeSent':
            url = message['params']['request']['url']
            if not url.startswith(('data:', 'blob:')):
                self.requested.append(url)
        return message


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Starts the browser and opens an empty page.

    Args:
        folder: empty folder for its profile.
    """
    (to_browser, outbox), (inbox, from_browser) = os.pipe(), os.pipe()
    options = ('--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe')
    quiet = ('--no-first-run', '--disable-background-networking', '--disable-dev-shm-usage')
    # The protocol's pipes are the file descriptors 3 and 4; copies with higher numbers are not overwritten on the way.
    ours = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 10) for pipe in (to_browser, from_browser)]
    process = subprocess.Popen(
        ['bash', '-c', f'exec "$@" 3<&{ours[0]} 4>&{ours[1]}', 'bash', find(), *options, *quiet,
         f'--user-data-dir={folder}'],
        pass_fds=ours,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for pipe in (to_browser, from_browser, *ours):
        os.close(pipe)
    try:
        yield Page(inbox, outbox)
    finally:
        process.terminate()
        process.wait(20)
        os.close(inbox)
        os.close(outbox)
