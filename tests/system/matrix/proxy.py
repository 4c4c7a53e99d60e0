"""The network between one device and the service."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes on what it gets, unless it is told otherwise.

    What is held is passed on when all is well again, also for those who gave up meanwhile: a
    request may reach the service long after its sender sent another one.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._passing = {True: threading.Event(), False: threading.Event()}
        self._refusing = False
        self._sockets: set[socket.socket] = set()
        self.heal()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Break off all connections and take no new ones."""
        self._refusing = True
        self._close_all()

    def hold(self, *, answers_only: bool) -> None:
        """Keep back what is sent, in both directions or only what the service says."""
        self._passing[False].clear()
        if not answers_only:
            self._passing[True].clear()

    def heal(self) -> None:
        self._refusing = False
        for passing in self._passing.values():
            passing.set()

    def close(self) -> None:
        self._server.close()
        self.heal()
        self._close_all()

    def _close_all(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                device, _ = self._server.accept()
            except OSError:
                return
            try:
                if self._refusing:
                    raise OSError
                service = socket.create_connection(self._to, timeout=5)
                service.settimeout(None)
            except OSError:
                device.close()
                continue
            for source, sink, asks in ((device, service, True), (service, device, False)):
                self._sockets.add(source)
                threading.Thread(target=self._pump, args=(source, sink, asks), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._passing[asks].wait()
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()
