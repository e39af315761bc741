"""URLs of galleries on servers: ``scheme://user:password@host:port/gallery?option=value``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from facedex.errors import ArgumentInvalid
from facedex.settings import Settings
from facedex.stores.registry import mask

__all__ = ["GALLERY", "Address"]

GALLERY = "facedex"
"""The gallery of a URL that names none."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says, percent-decoded.

    password  of FACEDEX_STORE_PASSWORD where the URL names a user without one.
    masked    the URL with its secrets replaced, for messages.
    options   of the query.
    """

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None
    gallery: str
    options: Mapping[str, str]
    masked: str

    @classmethod
    def parse(cls, url: str, port: int, options: Mapping[str, str]) -> Address:
        """Take a URL apart.

        port     when it names none.
        options  it may have, each with what may be said; others are refused.
        Raises   ArgumentInvalid.
        """
        masked = mask(url)
        try:
            parts = urlsplit(url)
            number = parts.port
            given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError as error:
            raise _wrong(masked, f"is not a URL ({error})") from error
        if not parts.hostname:
            raise _wrong(masked, "names no host")
        name = unquote(parts.path.strip("/")) or GALLERY
        if not _NAME.fullmatch(name):
            raise _wrong(masked, f"names gallery {name!r}; expected a letter, then at most 47 letters, digits or _")
        unknown = sorted(set(given) - set(options))
        if unknown:
            known = "; ".join(f"{option}={meaning}" for option, meaning in options.items()) or "none"
            raise _wrong(masked, f"has the option {unknown[0]!r}; known are {known}")
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        if user is not None and password in (None, "", "***"):  # as our messages show it
            password = Settings.from_environment().store_password
        return cls(
            scheme=parts.scheme.lower(),
            host=parts.hostname,
            port=port if number is None else number,
            user=user,
            password=password,
            gallery=name,
            options=given,
            masked=masked,
        )

    def seconds(self, option: str, default: float) -> float:
        """An option that is a duration.

        Raises  ArgumentInvalid.
        """
        text = self.options.get(option)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < 1e6:
            raise _wrong(self.masked, f"has {option}={text!r}; expected seconds, more than 0")
        return value


def _wrong(masked: str, what: str) -> ArgumentInvalid:
    return ArgumentInvalid(
        f"{masked} {what}. Say scheme://user:password@host:port/gallery.", parameter="url", url=masked
    )
