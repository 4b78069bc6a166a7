"""Where the commands that talk to a server find it: TINYFIT_URL and TINYFIT_API_KEY."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_URL = "http://127.0.0.1:8000"


class ClientSettings(BaseSettings):
    """What a user of a server may set; command line options win over it."""

    model_config = SettingsConfigDict(env_prefix="TINYFIT_", frozen=True, extra="forbid")

    url: str = DEFAULT_URL
    """The server's address."""
    api_key: SecretStr | None = None
    """What `tinyfit keys create` printed; a server without keys needs none."""
