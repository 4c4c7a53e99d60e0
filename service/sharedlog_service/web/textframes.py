"""uvicorn's WebSockets, against who can open one without a token.

Frames that are none, or no text: their socket is closed, and nothing more is said of it.

uvicorn closes it, too, but writes an error with a traceback where text is not UTF-8; and an
application that sends something meanwhile is told of it as of a fault of its own. So is one that
answers a handshake by a refusal. Whoever can open a socket could fill the log that way.

And who is sent away to make room for others is not waited for, which uvicorn would do for ten
seconds; nor are answers to pings kept without end for who takes none.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sharedlog_service.web.patience import Patient
from sharedlog_service.web.sockets import COME_BACK

NOT_UTF8 = 1007


class TextSocketProtocol(Patient, WebSocketsSansIOProtocol):
    """uvicorn's protocol, which looks at text before it hands it on, and does not wait for ever for
    who takes nothing."""

    _broken = False

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(NOT_UTF8, "A text frame must be UTF-8.")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        self._broken = True
        super().handle_parser_exception()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.cut_off()

    async def send(self, message: Any) -> None:
        leaving = message["type"] == "websocket.close" and message.get("code") == COME_BACK
        if leaving and self.transport.untaken:
            self.cut_off()  # the frame would wait behind what nobody takes
            return
        try:
            await super().send(message)
        except RuntimeError as error:
            if self._broken:  # which the application is told only with its next `receive`
                raise ClientDisconnected from error
            raise
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # uvicorn takes a refusal for none, and tells a fault
        if leaving:
            self.transport.close()
