"""An S3 server in a bed's network, versitygw, built from its Go module into the cache."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from tests.cluster.testbed.cache import go_program
from tests.cluster.testbed.place import Place
from tests.cluster.testbed.processes import Program

VERSITYGW = "1.8.0"
_PORT = 7070
_HEALTH = "/health"


@cache
def versitygw() -> Path:
    """The server's program; a minute the first time.

    Raises Missing when Go is absent, its proxy refuses the module, or the build fails.
    """
    return go_program("versitygw", "github.com/versity/versitygw/cmd/versitygw", VERSITYGW)


class ObjectStore:
    """A running server for one user, at an address that pods and this machine reach; a context manager.

    Raises Missing when its program cannot be had.
    """

    def __init__(self, place: Place, directory: Path) -> None:
        self.url = f"http://{place.address}:{_PORT}"
        self.access_key = f"AK{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_hex(20)
        objects, metadata = directory / "objects", directory / "metadata"
        for made in (objects, metadata):
            made.mkdir(parents=True)
        self._program = Program(
            place,
            "versitygw",
            [
                *(str(versitygw()), "--port", f"{place.address}:{_PORT}", "--health", _HEALTH),
                # Metadata in files: not every file system has extended attributes for everybody.
                *("posix", "--sidecar", str(metadata), str(objects)),
            ],
            {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
        )

    def __enter__(self) -> Self:
        self._program.start()
        self._program.wait_for("healthy", self._is_healthy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.stop()

    def bucket(self, name: str) -> Any:
        """A new bucket, as boto3 has it."""
        import boto3  # the test environment's own: the storage plugin brings it
        from botocore.config import Config

        service = boto3.resource(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(proxies={}),
        )
        return service.create_bucket(Bucket=name)

    def _is_healthy(self) -> bool:
        try:
            with build_opener(ProxyHandler({})).open(self.url + _HEALTH, timeout=5) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False
