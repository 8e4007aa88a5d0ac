"""Users."""

from __future__ import annotations

from collections.abc import Sequence

from clarigrpc import errors, v2
from clarigrpc._resources.base import Domain
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc.plan import Plan


class UserOperations(Domain):
    """Users of the service."""

    of_user = True

    @operation
    def get(
        self,
        user_id: str = "me",
        /,
        *,
        additional_fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[v2.User]:
        """A user.

        Args:
            user_id: Its id; ``"me"`` is the owner of the client's credentials.
            additional_fields: What the service leaves out by default: ``"stars"`` and the like.
            timeout: Seconds; None: the client's.

        Raises:
            NotFoundError: There is no such user, or it does not show itself.
        """
        response: v2.SingleUserResponse = yield from self._invoke(
            "GetUser",
            timeout,
            user_app_id=v2.UserAppIDSet(user_id=user_id),
            additional_fields=additional_fields,
        )
        return response.user

    @operation
    def validate_password(
        self, password: str, *, timeout: float | None = None
    ) -> Plan[v2.PasswordViolations]:
        """What is wrong with a password that the user would like to have.

        Returns:
            A flag for each rule that it breaks; none is set where it is good.
        """
        try:
            response = yield from self._invoke(
                "PostValidatePassword", timeout, password=v2.Password(plaintext=password)
            )
        except errors.ApiError as error:
            # A password that breaks a rule is an answer, not a failure of the call.
            if error.code != v2.StatusCode.PASSWORD_VALIDATION_FAILED:
                raise
            response = error.response
        violations: v2.PasswordViolations = response.password_violations
        return violations


class Users(UserOperations, Sync): ...


class AsyncUsers(UserOperations, Async): ...
