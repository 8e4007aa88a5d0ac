"""Logs every call of a client, for ``--debug``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import grpc

from clarigrpc._contract.status_names import code_name
from clarigrpc.cli.text import printable

logger = logging.getLogger("clarigrpc.cli")


class CallLog(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """An interceptor that logs the method, the outcome and the time of a call, retries included."""

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Log a call when it is over."""
        method = client_call_details.method.rpartition("/")[2]
        started = time.monotonic()
        logger.debug("%s: sent", method)
        call = continuation(client_call_details, request)

        def over() -> None:
            outcome = call.code().name
            if outcome == "OK" and isinstance(call, grpc.Future):
                outcome = f"OK, {code_name(call.result().status.code)}"
            seconds = time.monotonic() - started
            logger.debug("%s: %s after %.0f ms", method, outcome, seconds * 1000)
            if call.details():
                logger.debug("%s: %s", method, printable(" ".join(call.details().split())))

        if isinstance(call, grpc.Future):
            call.add_done_callback(lambda _: over())
        elif not call.add_callback(over):
            over()
        return call

    intercept_unary_stream: Any = intercept_unary_unary
    intercept_stream_unary: Any = intercept_unary_unary
    intercept_stream_stream: Any = intercept_unary_unary
