"""What a command line of Nextflow's asks for. Pure.

Nextflow's executor ``flux`` calls three commands, each in one form (docs/nextflow.md):

    flux submit --setattr=cwd=WORK --job-name="NAME" [options] [clusterOptions, split at blanks] /bin/bash .command.run
    flux jobs --suppress-header --format={id.f58} {status_abbrev} --since=-15m [--queue=Q] [--user=U]
    flux job cancel ID...

Anything else is for the real ``flux``. What `executors.flux_command.settings` puts in front of a job's name carries
what Nextflow itself does not pass on: seconds, memory and accelerators of the task.

``clusterOptions`` are words for Flux as a rule, or what a site's profile holds for Slurm: common ones of these are
taken too, and what has no meaning here is told in the run's log. The last one wins, as with Flux.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

WORK = "--setattr=cwd="
NAME = '--job-name="'
SCRIPT = ".command.run"
LOG = ".command.log"
#: Where Nextflow's words about a limit in minutes say 0: what is less than a minute is not "no limit".
LEAST_MINUTES = 1

_JOBS = ("--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m")
_CARRIED = re.compile(r"fxo((?::[tmg]\d+)*) (?=.)", re.DOTALL)


class Refused(ValueError):
    """The command line cannot be obeyed; the text names the word, and the cure."""


@dataclass(frozen=True)
class Submit:
    """One task. Sizes are bytes, durations seconds; None is "nothing said"."""

    name: str
    #: Words behind the program, without directory: ``("/bin/bash", ".command.run")``.
    argv: tuple[str, ...]
    #: Whether the task's output goes to .command.log in its directory.
    logged: bool = False
    cores: int = 1
    gpus: int = 0
    memory: int | None = None
    limit: float | None = None
    queue: str | None = None
    bank: str | None = None
    urgency: int | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    shell_options: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    #: What was not obeyed as it was said, one sentence each, for the log.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Jobs:
    """The states of all tasks are asked for."""


@dataclass(frozen=True)
class Cancel:
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Other:
    """For the real ``flux``."""


Asked = Submit | Jobs | Cancel | Other


def read(argv: Sequence[str]) -> Asked:
    """``argv`` without the program's own name. Raises Refused."""
    match list(argv):
        case ["submit", *words]:
            return _submit(words)
        case ["jobs", *words]:
            return Jobs() if _is_nextflows(words) else Other()
        case ["job", "cancel", *ids] | ["cancel", *ids] if ids and not any(one.startswith("-") for one in ids):
            return Cancel(tuple(ids))
    return Other()


def _is_nextflows(words: Sequence[str]) -> bool:
    rest = words[len(_JOBS) :]
    return tuple(words[: len(_JOBS)]) == _JOBS and all(one.startswith(("--queue=", "--user=")) for one in rest)


# -- submit


def _submit(words: Sequence[str]) -> Asked:
    if len(words) < 2 or not words[0].startswith(WORK) or not words[1].startswith(NAME):
        return Other()
    name, carried = _name(words[1][len(NAME) :].removesuffix('"'))
    found = _Found(Submit(name=" ".join(name.splitlines()), argv=()))  # a tag may have several
    found.carry(carried)
    rest = _options(list(words[2:]), found)
    if len(rest) != 2 or rest[0] != "/bin/bash" or not rest[1].endswith(SCRIPT):
        begin = repr(rest[0]) if rest else "the end of the line"
        raise Refused(
            f"clusterOptions: {begin} is no option, and {SCRIPT!r} was to come here; Nextflow splits clusterOptions at "
            "every blank, whatever quotes there are: write --name=value, with no blank in the value"
        )
    return found.submit(tuple(rest))


def _name(text: str) -> tuple[str, dict[str, int]]:
    """A job's name, and what our settings have put in front of it."""
    match = _CARRIED.match(text)
    if match is None:
        return text, {}
    return text[match.end() :], {word[0]: int(word[1:]) for word in match[1].split(":")[1:]}


@dataclass
class _Found:
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
                self.note("--time-limit=00: Nextflow passes whole minutes on; taken as 60 s, not as no limit")
        if self.per_core is not None:
            memory = self.per_core * cores
        return replace(
            self.asked,
            argv=argv,
            cores=cores,
            limit=limit or None,
            memory=memory,
            env=tuple(self.env.items()),
            shell_options=tuple(self.shell_options.items()),
            attributes=tuple(self.attributes.items()),
            notes=tuple(self.notes),
        )


def _options(words: list[str], found: _Found) -> list[str]:
    """Take options from the front; what follows them."""
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


# -- values


def seconds(text: str) -> float:
    """Of a duration as Flux writes it (``20s``, ``1.5h``), or as Slurm does (``MM:SS``, ``HH:MM:SS``, ``D-HH:MM:SS``);
    without a unit, minutes. 0 is no limit. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", text)
    if match is not None:
        unit = {"ms": 0.001, "s": 1, "m": 60, "": 60, "h": 3600, "d": 86400}[match[2]]
        return float(match[1]) * unit
    if text in ("inf", "infinity", "UNLIMITED"):
        return 0.0
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text)
    if match is None:
        raise ValueError(text)
    parts = [int(part) for part in match[2].split(":")]
    if match[1] is not None:  # D-HH[:MM[:SS]]
        hours, minutes, rest = (*parts, 0, 0)[:3]
        return float(86400 * int(match[1]) + 3600 * hours + 60 * minutes + rest)
    hours, minutes, rest = parts if len(parts) == 3 else (0, *parts)
    return float(3600 * hours + 60 * minutes + rest)


def size(text: str) -> int:
    """Bytes of a size; without a unit, MB of 2^20 bytes as Slurm and Nextflow count. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    shift: int = {"K": 10, "M": 20, "": 20, "G": 30, "T": 40}[match[2].upper()]
    return math.ceil(float(match[1]) * (1 << shift))


def gpus(text: str) -> int:
    """GPUs of Slurm's ``--gpus``: ``2``, ``MODEL:2``, ``MODEL``. Raises ValueError."""
    match = re.fullmatch(r"(?:[A-Za-z_][\w-]*)?(?::?(\d+))?", text)
    if match is None or not text:
        raise ValueError(text)
    return int(match[1]) if match[1] else 1


# -- options

_Handler = Callable[[_Found, str, str | None], None]


def _takes(parse: Callable[[str], object], expected: str) -> Callable[[Callable[[_Found, object], None]], _Handler]:
    """A handler that is given the option's value, read by ``parse``."""

    def decorate(function: Callable[[_Found, object], None]) -> _Handler:
        def handle(found: _Found, word: str, value: str | None) -> None:
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


def _time(found: _Found, word: str, value: str | None) -> None:
    text = value or ""
    if word.startswith("--time-limit=") and re.fullmatch(r"\d+", text) and found.minutes is None:
        found.minutes = float(text)  # Nextflow's own word comes before those of clusterOptions
        return
    try:
        limit = seconds(text)
    except ValueError:
        raise Refused(f"clusterOptions: {word}: {text!r} is not a duration; write --time-limit=90s") from None
    found.said_limit = True
    found.set(limit=limit)


def _output(found: _Found, word: str, value: str | None) -> None:
    if value and value.strip("\"'").endswith(LOG):
        found.set(logged=True)
    else:
        found.note(f"{word}: has no effect; the task's output goes to {LOG} in its directory")
        found.set(logged=True)


def _gres(found: _Found, word: str, value: str | None) -> None:
    """``gpu:2``, ``gpu:MODEL:2``; what is no GPU is Slurm's own."""
    total = 0
    for part in (value or "").split(","):
        name, _, count = part.removeprefix("gres/").removeprefix("gres:").partition(":")
        if name != "gpu":
            found.note(f"{word}: {part} is of Slurm, and has no effect here")
            continue
        try:
            total += gpus(count) if count else 1
        except ValueError:
            raise Refused(f"clusterOptions: {word}: {part!r} is not {_GPUS}") from None
    if total:
        found.set(gpus=total)


def _nodes(found: _Found, word: str, value: str | None) -> None:
    if value not in ("1", "1-1"):
        raise Refused(
            f"clusterOptions: {word}: a task has one node here, since its script would run once on each of them; give "
            "the task's cores by `cpus`, and start MPI programs inside it"
        )


def _ntasks(found: _Found, word: str, value: str | None) -> None:
    try:
        found.tasks = _at_least(1)(value or "")
    except ValueError:
        raise Refused(f"clusterOptions: {word}: {value!r} is not a whole number >= 1") from None


def _env(found: _Found, word: str, value: str | None) -> None:
    name, equals, text = (value or "").partition("=")
    if name.startswith("-") and not equals:
        found.env[name[1:]] = None
    elif name and equals and re.fullmatch(r"[A-Za-z_]\w*", name):
        found.env[name] = text.strip("\"'")
    else:
        found.note(f"{word}: has no effect; tasks have the environment that Nextflow was started with")


def _setopt(found: _Found, word: str, value: str | None) -> None:
    name, equals, text = (value or "").partition("=")
    if not name:
        raise Refused(f"clusterOptions: {word}: an option of Flux's job shell is missing; write -oname=value")
    found.shell_options[name] = text if equals else "1"


def _setattr(found: _Found, word: str, value: str | None) -> None:
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


def _per_core(found: _Found, value: object) -> None:
    assert isinstance(value, int)
    found.per_core = value


def _exclusive(found: _Found, word: str, value: str | None) -> None:
    found.note(f"{word}: has no effect; give the task as many cpus as a node has")


def _ignored(found: _Found, word: str, value: str | None) -> None:
    found.note(f"{word}: is of Slurm, and has no effect here")


def _bank(found: _Found, value: object) -> None:
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
    "--gpus": _sets("gpus", gpus, _GPUS),
    "--gres": _gres,
    "--memory": _sets("memory", size, _SIZE),
    "--mem": _sets("memory", size, _SIZE),
    "--mem-per-cpu": _takes(size, _SIZE)(_per_core),
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
