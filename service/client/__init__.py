"""A typed Python client of a tinyfit server."""

from service.client.client import Client
from service.client.download import ChecksumError
from service.client.http import AnswerError, ClientError, ConnectionFailedError, ProblemError

__all__ = [
    "AnswerError",
    "ChecksumError",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "ProblemError",
]
