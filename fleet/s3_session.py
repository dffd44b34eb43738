"""The way to the object store: its client, the credentials, and whose fault it is when something goes wrong.

Any S3 will do: path-style addresses, Signature Version 4, no checksums beyond what S3 asks for. What goes wrong outside
is ``S3Trouble`` with a sentence that names the endpoint; ``S3Refused`` where the answer was no, so that trying again
helps only after somebody changed something. A call that was refused makes the next one read the credentials afresh:
they may be rotated under a running agent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import SharedCredentialProvider
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.exceptions import HTTPError

from fleet.config import BadConfig, S3Config
from fleet.download import WORKERS
from fleet.loop import Trouble
from fleet.urls import is_loopback

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_REFUSED = {
    "AccessDenied": "the access key is not allowed to do this",
    "Forbidden": "the access key is not allowed to do this, or is not the right one",
    "403": "the access key is not allowed to do this, or is not the right one",
    "InvalidAccessKeyId": "it does not know the access key",
    "SignatureDoesNotMatch": "the secret key is not the right one",
    "ExpiredToken": "the credentials have expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "AuthorizationHeaderMalformed": "the region is not the bucket's",
}


class S3Trouble(Trouble):
    """The object store did not answer, or not sensibly. Nothing is known about an unanswered write."""


class S3Refused(S3Trouble):
    """It answered no: credentials, permissions, bucket, region. The sentence says which."""


class AlreadyThere(Exception):
    """A conditional PUT found the key taken; nothing was changed.

    It may have been taken by this very call: when the answer to a PUT is lost, boto3's second try finds the first.
    """


class Session:
    """To one bucket. Safe to use from several threads."""

    def __init__(self, config: S3Config, connect_seconds: float) -> None:
        self.where = config.endpoint or f"Amazon S3 in {config.region}"
        self.bucket = config.bucket
        self._config = config
        self._lock = threading.Lock()
        self._cached: S3Client | None = None
        self._options = Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            connect_timeout=connect_seconds,
            read_timeout=config.stall_seconds,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=WORKERS + 4,
            proxies={} if config.endpoint and is_loopback(config.endpoint) else None,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )

    def client(self) -> S3Client:
        with self._lock:
            if self._cached is None:
                self._cached = self._connect()
            return self._cached

    def _connect(self) -> S3Client:
        session = botocore.session.Session()
        key = secret = token = None
        if self._config.credentials:
            key, secret, token = self._from_file(self._config.credentials)
        try:
            return boto3.Session(botocore_session=session).client(
                "s3",
                endpoint_url=self._config.endpoint,
                region_name=self._config.region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                aws_session_token=token,
                config=self._options,
            )
        except ValueError as e:
            raise BadConfig(f"the S3 endpoint {self._config.endpoint!r} is not a URL such as https://host:port") from e
        except BotoCoreError as e:
            raise BadConfig(f"S3 cannot be used with this configuration: {e}") from e

    def _from_file(self, path: Path) -> tuple[str, str, str | None]:
        """From the [default] section of an AWS credentials file: the one named, whatever the environment says."""
        try:
            path.open("rb").close()  # botocore takes a file that it cannot read for one that is not there
            found = SharedCredentialProvider(str(path)).load()
        except OSError as e:
            raise S3Refused(f"cannot read the S3 credentials in {path}: {e.strerror}") from e
        except BotoCoreError as e:
            raise S3Refused(f"the S3 credentials in {path} cannot be used: {e}") from e
        if found is None:
            raise S3Refused(f"{path} has no [default] section with aws_access_key_id and aws_secret_access_key")
        return found.access_key, found.secret_key, found.token

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn what botocore raises into whose fault it is, with a sentence."""
        try:
            yield
        except ClientError as e:
            raise self._sorted(e, what) from e
        except ParamValidationError as e:
            raise BadConfig(f"S3 cannot be asked to {what}: {' '.join(str(e).split())}") from e
        except HTTPError as e:
            raise S3Trouble(f"S3 at {self.where} broke off, could not {what}: {e}") from e
        except BotoCoreError as e:
            if type(e).__name__ in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
                raise S3Refused(
                    f"there are no credentials for S3 at {self.where}: name a credentials file, or set "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ) from e
            raise S3Trouble(f"S3 at {self.where} does not answer, could not {what}: {e}") from e

    def _sorted(self, e: ClientError, what: str) -> Exception:
        code = e.response.get("Error", {}).get("Code", "") or "no code"
        if code in ("PreconditionFailed", "ConditionalRequestConflict"):
            return AlreadyThere(f"could not {what}: the key is taken")
        if code == "NoSuchBucket":
            return S3Refused(f"S3 at {self.where} has no bucket {self.bucket!r}: make it, or correct its name")
        if why := _REFUSED.get(code):
            with self._lock:
                self._cached = None
            return S3Refused(f"S3 at {self.where} refuses to {what} in bucket {self.bucket!r}: {why} ({code})")
        return S3Trouble(f"S3 at {self.where} could not {what}: {e}")
