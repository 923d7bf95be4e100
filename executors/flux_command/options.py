"""The options of a submission: Nextflow's own, then the words of clusterOptions. Pure.

These are words for Flux as a rule, or what a site's profile holds for Slurm: common ones of these are taken too, and
what has no meaning here is named in the run's log. The last one wins, as with Flux.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from executors.flux_command import values
from executors.flux_command.asked import Refused, Submit

LOG = ".command.log"
#: Where Nextflow's words about a limit in minutes say 0: what is less than a minute is not "no limit".
LEAST_MINUTES = 1


@dataclass
class Found:
    """What the words have said so far. Those of clusterOptions count more than what Nextflow says by itself."""

    asked: Submit
    notes: list[str] = field(default_factory=list)
    env: dict[str, str | None] = field(default_factory=dict)
    shell_options: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    tasks: int = 1
    per_core: int | None = None
    #: Nextflow's own limit, in whole minutes.
    minutes: float | None = None
    said_limit: bool = False

    def carry(self, carried: dict[str, int]) -> None:
        if "t" in carried:
            self.said_limit = True
            self.asked = replace(self.asked, limit=float(max(1, carried["t"])))
        if "m" in carried:
            self.asked = replace(self.asked, memory=carried["m"] * 2**20)
        if "g" in carried:
            self.asked = replace(self.asked, gpus=carried["g"])
        if "i" in carried:
            self.asked = replace(self.asked, ignored=True)

    def set(self, **values: object) -> None:
        self.asked = replace(self.asked, **values)  # type: ignore[arg-type]  # names and types of Submit's fields

    def note(self, text: str) -> None:
        self.notes.append(text)

    def submit(self, argv: tuple[str, ...]) -> Submit:
        cores = self.asked.cores * self.tasks
        limit, memory = self.asked.limit, self.asked.memory
        if not self.said_limit and self.minutes is not None:
            limit = 60 * self.minutes
            if self.minutes < LEAST_MINUTES:
                limit = 60.0 * LEAST_MINUTES
                self.note("--time-limit=00: Nextflow passes whole minutes only; this counts as 60 s, not as no limit")
        if self.per_core is not None:
            memory = self.per_core * cores
        return replace(
            self.asked,
            argv=argv,
            cores=cores,
            limit=limit or None,
            # 0 is Slurm's word for all that a node has, and no limit.
            memory=memory or None,
            env=tuple(self.env.items()),
            shell_options=tuple(self.shell_options.items()),
            attributes=tuple(self.attributes.items()),
            notes=tuple(self.notes),
        )


def take(words: list[str], found: Found) -> list[str]:
    """Take options from the front; what follows them. Raises Refused."""
    while words and words[0].startswith("-") and words[0] not in ("-", "--"):
        word = words.pop(0)
        name, value = _split(word, words)
        handler = _HANDLERS.get(name)
        if handler is None:
            found.note(f"{word}: is not known here, and has no effect")
        else:
            handler(found, word, value)
    return words


def _split(word: str, rest: list[str]) -> tuple[str, str | None]:
    """The option of a word, and its value, which is taken from ``rest`` where it stands in a word of its own."""
    if word.startswith("--"):
        name, said, value = word.partition("=")
    else:
        name, said, value = _LONG.get(word[:2], word[:2]), word[2:], word[2:].removeprefix("=")
    if said:
        return name, value
    return name, rest.pop(0) if name not in _FLAGS and _is_value(rest) else None


def _is_value(rest: Sequence[str]) -> bool:
    return len(rest) > 2 and not rest[0].startswith("-")


_Handler = Callable[[Found, str, str | None], None]


def _takes(parse: Callable[[str], object], expected: str) -> Callable[[Callable[[Found, object], None]], _Handler]:
    """A handler that is given the option's value, read by ``parse``."""

    def decorate(function: Callable[[Found, object], None]) -> _Handler:
        def handle(found: Found, word: str, value: str | None) -> None:
            try:
                parsed = parse(value or "")
            except ValueError:
                raise Refused(f"clusterOptions: {word}: {value or 'nothing'!r} is not {expected}") from None
            function(found, parsed)

        return handle

    return decorate


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < low:
            raise ValueError(text)
        return number

    return parse


def _said(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _sets(name: str, parse: Callable[[str], object], expected: str) -> _Handler:
    return _takes(parse, expected)(lambda found, value: found.set(**{name: value}))


def _time(found: Found, word: str, value: str | None) -> None:
    text = value or ""
    if word.startswith("--time-limit=") and re.fullmatch(r"\d+", text) and found.minutes is None:
        found.minutes = float(text)  # Nextflow's own word comes before those of clusterOptions
        return
    try:
        limit = values.seconds(text)
    except ValueError:
        raise Refused(f"clusterOptions: {word}: {text!r} is not a duration; write --time-limit=90s") from None
    found.said_limit = True
    found.set(limit=limit)


def _output(found: Found, word: str, value: str | None) -> None:
    if value and value.strip("\"'").endswith(LOG):
        found.set(logged=True)
    else:
        found.note(f"{word}: has no effect; the task's output goes to {LOG} in its directory")
        found.set(logged=True)


def _gres(found: Found, word: str, value: str | None) -> None:
    """``gpu:2``, ``gpu:MODEL:2``; what is no GPU is Slurm's own."""
    total = 0
    for part in (value or "").split(","):
        name, _, count = part.removeprefix("gres/").removeprefix("gres:").partition(":")
        if name != "gpu":
            found.note(f"{word}: {part} is an option of Slurm, and has no effect here")
            continue
        try:
            total += values.gpus(count) if count else 1
        except ValueError:
            raise Refused(f"clusterOptions: {word}: {part!r} is not {_GPUS}") from None
    if total:
        found.set(gpus=total)


def _nodes(found: Found, word: str, value: str | None) -> None:
    if value not in ("1", "1-1"):
        raise Refused(
            f"clusterOptions: {word}: a task has one node here, since its script would run once on each of them; give "
            "the task's cores by `cpus`, and start MPI programs inside it"
        )


def _ntasks(found: Found, word: str, value: str | None) -> None:
    try:
        found.tasks = _at_least(1)(value or "")
    except ValueError:
        raise Refused(f"clusterOptions: {word}: {value!r} is not a whole number >= 1") from None


def _env(found: Found, word: str, value: str | None) -> None:
    name, equals, text = (value or "").partition("=")
    if name.startswith("-") and not equals:
        found.env[name[1:]] = None
    elif name and equals and re.fullmatch(r"[A-Za-z_]\w*", name):
        found.env[name] = text.strip("\"'")
    else:
        found.note(f"{word}: has no effect; tasks have the environment that Nextflow was started with")


def _setopt(found: Found, word: str, value: str | None) -> None:
    name, equals, text = (value or "").partition("=")
    if not name:
        raise Refused(f"clusterOptions: {word}: an option of Flux's job shell is missing; write -oname=value")
    found.shell_options[name] = text if equals else "1"


def _setattr(found: Found, word: str, value: str | None) -> None:
    name, _, text = (value or "").partition("=")
    name = name.removeprefix("attributes.")
    if name in ("user.mem_mb", "mem_mb"):
        try:
            found.set(memory=int(text) * 2**20)
        except ValueError:
            raise Refused(f"clusterOptions: {word}: {text!r} is not a whole number of MB") from None
    elif name.split(".")[0] in ("user", "system") and "." in name:
        found.attributes[name] = text
    else:
        found.note(f"{word}: has no effect")


def _per_core(found: Found, value: object) -> None:
    assert isinstance(value, int)
    found.per_core = value


def _exclusive(found: Found, word: str, value: str | None) -> None:
    found.note(f"{word}: has no effect; give the task as many cpus as a node has")


def _ignored(found: Found, word: str, value: str | None) -> None:
    found.note(f"{word}: is an option of Slurm, and has no effect here")


def _bank(found: Found, value: object) -> None:
    found.set(bank=value)


_COUNT = "a whole number >= 1"
_SIZE = "a size such as 4G"
_GPUS = "gpu:N"

_HANDLERS: dict[str, _Handler] = {
    "--output": _output,
    "--cores-per-task": _sets("cores", _at_least(1), _COUNT),
    "--cpus-per-task": _sets("cores", _at_least(1), _COUNT),
    "--time-limit": _time,
    "--time": _time,
    "--queue": _sets("queue", _said, "a queue"),
    "--partition": _sets("queue", _said, "a queue"),
    "--bank": _takes(_said, "a bank")(_bank),
    "--account": _takes(_said, "an account")(_bank),
    "--gpus-per-task": _sets("gpus", _at_least(0), "a whole number >= 0"),
    "--gpus": _sets("gpus", values.gpus, _GPUS),
    "--gres": _gres,
    "--memory": _sets("memory", values.size, _SIZE),
    "--mem": _sets("memory", values.size, _SIZE),
    "--mem-per-cpu": _takes(values.size, _SIZE)(_per_core),
    "--urgency": _sets("urgency", _at_least(0), "a whole number from 0 to 31"),
    "--nodes": _nodes,
    "--ntasks": _ntasks,
    "--env": _env,
    "--setopt": _setopt,
    "--setattr": _setattr,
    "--exclusive": _exclusive,
    **dict.fromkeys(
        (
            "--qos", "--constraint", "--reservation", "--mail-type", "--mail-user", "--export", "--licenses",
            "--exclude", "--nodelist", "--comment", "--hint", "--clusters", "--wckey", "--nice", "--ntasks-per-node",
            "--no-requeue", "--requeue", "--signal", "--tmp", "--parsable", "--oversubscribe", "--threads-per-core",
        ),
        _ignored,
    ),
}  # fmt: skip
_FLAGS = ("--exclusive", "--no-requeue", "--requeue", "--parsable", "--oversubscribe")
#: One letter: Flux's where both have it.
_LONG = {
    "-c": "--cores-per-task", "-t": "--time-limit", "-q": "--queue", "-p": "--partition", "-B": "--bank",
    "-A": "--account", "-g": "--gpus-per-task", "-G": "--gpus", "-N": "--nodes", "-n": "--ntasks", "-o": "--setopt",
    "-S": "--setattr", "-x": "--exclusive", "-C": "--constraint", "-w": "--nodelist", "-L": "--licenses",
    "-M": "--clusters",
}  # fmt: skip
