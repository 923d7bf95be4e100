"""A command of which Flux's shell changes nothing."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import List

from .secrets import bash_or_sh

#: Put between two braces, and taken out again.
_BETWEEN = "\001"
_BRACES = "exec \"${@//$'\\001'/}\""


def without_templates(command: List[str]) -> List[str]:
    """A command of which Flux's shell changes nothing. It fills in what it knows in words like "{{id}}", takes 1,023
    bytes between such braces at most, and has no word for a brace.
    """
    if not any("{{" in word for word in command):
        return command
    if shutil.which("bash") is not None and not any(_BETWEEN in word for word in command):
        return [bash_or_sh(), "-c", _BRACES, "sh"] + [re.sub(r"\{(?=\{)", "{" + _BETWEEN, word) for word in command]
    # Quotes that end and begin again between two braces.
    return ["/bin/sh", "-c", "exec " + " ".join(shlex.quote(word).replace("{", "{''") for word in command)]
