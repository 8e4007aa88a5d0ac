"""Inputs that are created once, although the request has to be sent again.

A request whose connection breaks may have been served. So the inputs with its ids are listed: those
that are its own are there, and only the others are sent again. Which are its own is decided as in
``inputs.upload``.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from clarigrpc import errors, v2
from clarigrpc._bulk.input_engine import ADDED_CODES, is_ours
from clarigrpc._rpc.plan import Plan, Sleep, call
from clarigrpc._rpc.retry import deadline_after, retry_delays

logger = logging.getLogger("clarigrpc")

_TAKEN = v2.StatusCode.INPUT_DUPLICATE
_IN_USE = v2.Status(code=_TAKEN, description="Input duplicate", details="another input has its id")


def can_be_repeated(request: v2.PostInputsRequest) -> bool:
    """Whether each input has an id of its own, by which it is found again."""
    ids = {one.id for one in request.inputs}
    return len(ids) == len(request.inputs) and "" not in ids


def create_once(client: Any, request: v2.PostInputsRequest, timeout: float | None) -> Plan[Any]:
    """The response to a request for inputs that each have an id.

    Args:
        client: Sends it.
        request: The request.
        timeout: Seconds for all of it. None uses the client's setting.
    """
    settings = client.settings
    deadline = deadline_after(settings.timeout if timeout is None else timeout, time.monotonic())
    retries = retry_delays(
        settings.retry,
        client.channel.core.budget,
        idempotent=True,
        deadline=deadline,
        clock=time.monotonic,
        random=random.random,
    )
    next(retries)
    since = time.time()
    outcomes: dict[str, v2.Input] = {}
    refused = 0
    rest = list(request.inputs)
    is_repeated = False
    while True:
        failure: errors.ApiError | None = None
        taken: dict[str, v2.Status] = {}
        try:
            response = yield from call(
                "PostInputs",
                v2.PostInputsRequest(
                    user_app_id=request.user_app_id,
                    inputs=rest,
                    inputs_add_job_id=request.inputs_add_job_id,
                )
                if is_repeated
                else request,
                timeout=_left(deadline),
                raise_on_partial=False,
            )
        except errors.ApiError as error:
            failure = error
            # One id that is taken makes a whole request fail.
            if not (is_repeated and error.code == _TAKEN):
                delay = retries.send(error)
                logger.info("trying again in %.2f s: %s", delay, error)
                yield Sleep(delay)
        else:
            if not is_repeated:
                return response
            for one in response.inputs:
                if one.status.code == _TAKEN:
                    taken[one.id] = one.status
                else:
                    outcomes[one.id] = one
                    refused += one.status.code not in ADDED_CODES
        rest = [one for one in rest if one.id not in outcomes]
        if not rest:
            break
        is_repeated = True
        found = yield from _stored(request, rest, deadline, failure)
        for one in rest:
            there = found.get(one.id)
            if there is not None and is_ours(one, there, since):
                outcomes[one.id] = there
            elif there is not None or one.id in taken:
                outcomes[one.id] = v2.Input(id=one.id, status=taken.get(one.id, _IN_USE))
                refused += 1
        rest = [one for one in rest if one.id not in outcomes]
        if not rest:
            break
        if failure is None:
            raise errors.InternalError(
                f"the service's response has no word on {len(rest)} of the inputs",
                method="PostInputs",
                request_id=response.status.req_id,
            )
        if failure.code == _TAKEN and not found:
            raise failure
    made = v2.MultiInputResponse(inputs=[outcomes[one.id] for one in request.inputs])
    made.status.code = v2.StatusCode.SUCCESS
    if refused:
        mixed = refused < len(outcomes)
        made.status.code = v2.StatusCode.MIXED_STATUS if mixed else v2.StatusCode.FAILURE
    return made


def _stored(
    request: v2.PostInputsRequest,
    wanted: list[v2.Input],
    deadline: float,
    failure: errors.ApiError | None,
) -> Plan[dict[str, v2.Input]]:
    """The inputs that there are with these ids."""
    try:
        response = yield from call(
            "ListInputs",
            v2.ListInputsRequest(
                user_app_id=request.user_app_id,
                ids=[one.id for one in wanted],
                page=1,
                per_page=len(wanted),
            ),
            timeout=_left(deadline),
        )
    except errors.ApiError as error:
        raise failure or error from error
    return {one.id: one for one in response.inputs}


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
