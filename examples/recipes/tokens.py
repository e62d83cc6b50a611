"""The times of a JSON Web Token (RFC 7519), checked against an interval instead of a single moment."""

from collections.abc import Mapping
from fractions import Fraction

from vmclock_async import TimeInterval


def require_valid(claims: Mapping[str, float], now: TimeInterval) -> None:
    """Raise PermissionError unless the token with *claims* is certain to be valid throughout *now*."""
    if "exp" in claims and now.latest_ns >= _ns(claims["exp"]):
        raise PermissionError("the token is expired, or may be")
    if "nbf" in claims and now.earliest_ns < _ns(claims["nbf"]):
        raise PermissionError("the token is not valid yet, or may not be")
    if "iat" in claims and now.latest_ns < _ns(claims["iat"]):
        raise PermissionError("the token was certainly issued in the future: its issuer's clock is wrong")


def claims_for(seconds: int, now: TimeInterval) -> dict[str, int]:
    """The times of a token that is valid at once, and for at most *seconds* from the moment it is issued."""
    issued = now.earliest_ns // 10**9
    return {"iat": issued, "nbf": issued, "exp": issued + seconds}


def _ns(seconds: float) -> Fraction:
    """A NumericDate, which may have a fraction, in nanoseconds."""
    return Fraction(seconds) * 10**9
