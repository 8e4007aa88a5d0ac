"""Users of the service."""

from __future__ import annotations

from collections.abc import Sequence

from clarigrpc import errors, v2
from clarigrpc._resources.base import Domain, filled
from clarigrpc._resources.sync_async import Async, Sync, operation
from clarigrpc._rpc.plan import Plan


class UserOperations(Domain):
    """Users of the service."""

    _of_user = True

    @operation
    def get(
        self,
        user_id: str = "me",
        /,
        *,
        additional_fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Plan[v2.User]:
        """Fetch one user.

        Args:
            user_id: Id of the user. ``"me"`` is the owner of the client's credentials.
            additional_fields: Fields to include that the service omits by default, e.g.
                ``"stars"``.
            timeout: Seconds. None uses the client's setting.

        Raises:
            NotFoundError: The user does not exist or is not visible to you.
        """
        response: v2.SingleUserResponse = yield from self._invoke(
            "GetUser",
            timeout,
            user_app_id=filled("GetUser", v2.UserAppIDSet, user_id=user_id),
            additional_fields=additional_fields,
        )
        return response.user

    @operation
    def validate_password(
        self, password: str, *, timeout: float | None = None
    ) -> Plan[v2.PasswordViolations]:
        """Check a new password of the user against the rules of the service.

        Args:
            password: The password.
            timeout: Seconds. None uses the client's setting.

        Returns:
            A flag for each rule that the password breaks; none is set if it is good.
        """
        try:
            method = "PostValidatePassword"
            given = filled(method, v2.Password, plaintext=password)
            response = yield from self._invoke(method, timeout, password=given)
        except errors.ApiError as error:
            # A password that breaks a rule is an answer, not a failure of the call.
            if error.code != v2.StatusCode.PASSWORD_VALIDATION_FAILED:
                raise
            response = error.response
        violations: v2.PasswordViolations = response.password_violations
        return violations


class Users(UserOperations, Sync): ...


class AsyncUsers(UserOperations, Async): ...
