"""Which job is which, across attempts and across lives of Snakemake."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from snakemake import wrapper
from snakemake.io import is_flagged
from snakemake.shell import shell

from snakemake_executor_flux.namespaces import rule_globals, shell_text


def base_key(job: Any) -> str:
    """The same for all attempts at the same output: 20 hex digits over rules, outputs and wildcards."""
    return _hash([sorted(job.rules), sorted(map(str, job.output)), _wildcards(job)], 20)


def attempt_key(base: str, attempt: int, generation: str = "") -> str:
    """The key of one attempt. ``generation`` sets a job apart from an earlier one that must not answer for it."""
    return f"{base}.{attempt}{'.' + generation if generation else ''}"


def split_key(key: str) -> str:
    """The base of a key."""
    return key.split(".", 1)[0]


def attempt_of(key: str) -> int:
    return int(key.split(".")[1])


def digest(job: Any) -> str:
    """What a job does, as text: if it differs, a job of an earlier Snakemake is not this one.

    Resources count, since they are in the jobspec; ``tmpdir`` does not, since the place of execution decides it.
    """
    members = sorted(job, key=lambda one: str(one.output)) if job.is_group() else [job]
    return _hash([_one(member) for member in members], 32)


def changed_input(job: Any, since: float, made: Collection[str]) -> str | None:
    """An input that changed after ``since``, in seconds since the epoch: what a job did with it before is of no use.

    ``made`` are files that count as unchanged: outputs of jobs of an earlier Snakemake, which this one only finishes
    (and touches then). Nor do `ancient` inputs count, nor those that only a storage provider has.
    """
    for file in job.input:
        if str(file) in made or is_flagged(file, "ancient") or file.is_storage:
            continue
        try:
            changed = max(os.stat(file).st_mtime, os.lstat(file).st_mtime)
        except OSError:
            continue  # not there yet, or no more: temporary ones go when they are done with
        if changed > since:
            return str(file)
    return None


def wildcards_text(job: Any) -> str:
    """For people: ``sample=a,unit=1``; a group's name for a group."""
    if job.is_group():
        return str(job.groupid)
    return ",".join(f"{name}={value}" for name, value in job.wildcards_dict.items())


def stable_text(value: Any) -> str:
    """The same text for the same value, whatever its keys and values are; a config may hold what JSON cannot."""
    return repr(_stable(value, ()))


def _stable(value: Any, around: tuple[int, ...]) -> Any:
    if id(value) in around:
        return "around"  # it holds itself
    around = (*around, id(value))
    if isinstance(value, Mapping):
        return "mapping", sorted(
            ((_stable(name, around), _stable(one, around)) for name, one in value.items()), key=repr
        )
    if isinstance(value, set | frozenset):
        return "set", sorted((_stable(one, around) for one in value), key=repr)
    if isinstance(value, list | tuple):
        return "list", [_stable(one, around) for one in value]
    if value is None or isinstance(value, bytes | bool | int | float | complex):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        return repr(str(value))
    # What such a value prints may leave things out (a large array), or say where it is in memory.
    try:
        content = pickle.dumps(value, protocol=4)
    except Exception:  # whatever a value's own methods raise: it is told by what it prints then
        return repr(value)
    return type(value).__qualname__, hashlib.sha256(content).hexdigest()


def _one(job: Any) -> list[Any]:
    resources = {name: value for name, value in job.resources.items() if name != "tmpdir"}
    return [
        job.rule.name,
        _code(job),
        list(map(str, job.input)),
        list(map(str, job.output)),
        list(map(str, job.log)),
        str(job.benchmark),
        stable_text([list(job.params), list(job.params.items())]),
        job.wildcards_dict,
        resources,
        _conda(job.conda_env_spec),
        str(job.container_img_url),
        str(job.env_modules),
    ]


def _conda(spec: Any) -> list[str] | None:
    """Which environment, by its name, its directory or its file, and what is in that."""
    if spec is None:
        return None
    where = next((getattr(spec, name) for name in ("file", "path", "name") if hasattr(spec, name)), type(spec).__name__)
    place = str(where.get_path_or_uri(secret_free=True) if hasattr(where, "get_path_or_uri") else where)
    try:
        return [place, hashlib.sha256(Path(place).read_bytes()).hexdigest()]
    except OSError:
        return [place]  # a name, a directory, or not on this machine


def _code(job: Any) -> str:
    if job.is_shell:
        around = [shell._process_prefix, shell._process_suffix, shell._process_args.get("executable")]
        # Formatted: it may hold what is nowhere else, {config[x]} for instance.
        return f"{shell_text(job)}\n{around}"
    code = _content(job) or job.rule.script or job.rule.notebook or job.rule.wrapper or job.rule.run_func_src
    # Such code sees the whole config, and nobody can tell what it uses.
    return f"{code}\n{stable_text(rule_globals(job.rule).get('config'))}"


def _content(job: Any) -> str | None:
    """What a script or wrapper on this machine holds, since a changed one does something else; not what it imports."""
    for source in _sources(job):
        path = source.get_path_or_uri(secret_free=True)
        try:
            return f"{path}\n{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        except OSError:
            continue  # not on this machine: its address has its version, or nobody can tell
    return None


def _sources(job: Any) -> list[Any]:
    """Where the code of a job may be, first come first served."""
    rule = job.rule
    if rule.wrapper:
        source = wrapper.get_path(rule.wrapper, prefix=rule.workflow.workflow_settings.wrapper_prefix)
        return [source] if wrapper.is_script(source) else [source.join(f"wrapper{end}") for end in wrapper.EXTENSIONS]
    path = rule.script or rule.notebook
    return [job._path_to_source_file(path)] if path else []


def _wildcards(job: Any) -> Any:
    if job.is_group():
        return sorted(str(sorted(member.wildcards_dict.items())) for member in job)
    return job.wildcards_dict


def _hash(value: Any, digits: int) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
