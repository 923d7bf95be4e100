"""How a triggerer comes to know what it must mask, while Airflow's database holds none of it.

Arguments of a trigger are in the database, and the API shows them. So they hold the values encrypted, and the key is
with the job, in the memory of the instance's agent (`Session.save_bookmark`): neither of the two is of use without the
other. Where the agent has lost the key (it was started again), the triggerer logs nothing; the worker that goes on
logs all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """What is kept with a job for the next reader of its output."""

    #: Number of the try whose log the output goes to.
    attempt: int
    #: `OutputLog.place`; "": at the beginning.
    place: str = ""
    #: Of the trigger's sealed values; "": there are none.
    key: str = ""
    #: Which trigger waits for the job, of all that ever did.
    reader: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Kept | None:
        """None where nothing was kept."""
        attempt, place, key, reader, *_ = [*(text or "").split(":"), "", "", ""]
        return cls(int(attempt), place, key, reader) if attempt.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.attempt}:{self.place}:{self.key}:{self.reader}"


def seal(values: Sequence[str]) -> tuple[str, str]:
    """The values as an encrypted text, and its key; two empty texts for no values."""
    if not values:
        return "", ""
    from cryptography.fernet import Fernet

    key = Fernet.generate_key()
    return Fernet(key).encrypt(json.dumps(list(values)).encode()).decode("ascii"), key.decode("ascii")


def unseal(sealed: str, key: str) -> list[str] | None:
    """The values; None where the key is none of theirs."""
    from cryptography.fernet import Fernet, InvalidToken

    if not sealed:
        return []
    try:
        return list(json.loads(Fernet(key.encode()).decrypt(sealed.encode())))
    except (InvalidToken, ValueError):
        return None
