"""Secrets, and what is signed with them."""

import base64

import pytest
from pydantic import ValidationError

from service.settings import Settings
from service.signing import key_of

KEY = b"a key of at least 24 bytes"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


def test_secrets() -> None:
    assert key_of(SECRET) == KEY
    assert key_of("x" * 24) == b"x" * 24
    for bad in ("short", "whsec_AAAA", "whsec_no base64 at all, but quite long"):
        with pytest.raises(ValidationError, match="not one to sign with"):
            Settings(webhook_secret=bad)
