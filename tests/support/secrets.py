"""A secret, and the forms in which it must not be found."""

from __future__ import annotations

import base64
from urllib.parse import quote

SECRET = "s3cret/of the+run=8f2a91"


def forms(secret: str) -> list[str]:
    encoded = secret.encode()
    # Base64 of the middle of a longer text depends on where it begins; whole groups of three bytes do not.
    shifted = [base64.b64encode(encoded[at : len(encoded) - (len(encoded) - at) % 3]).decode() for at in range(3)]
    return [secret, quote(secret), quote(secret, safe=""), *shifted]


def assert_absent(text: str, where: str, secret: str = SECRET) -> None:
    for form in forms(secret):
        assert form not in text, f"the secret is in {where}"
