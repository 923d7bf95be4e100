"""What the Snakemake executor decides without running anything: words of nested jobs, runs of directories, scripts."""

from __future__ import annotations

import datetime
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.exceptions import RuleException
from snakemake.io import IOFile, ancient

from snakemake_executor_flux import leftovers
from snakemake_executor_flux.executor import Executor
from snakemake_executor_flux.identity import _content, changed_input, stable_text
from snakemake_executor_flux.namespaces import rule_globals, shell_text
from snakemake_executor_flux.preparation import JobPreparation
from snakemake_executor_flux.runfile import RunFile
from snakemake_executor_flux.settings import ExecutorSettings, UserError
from snakemake_executor_flux.steps.base import StepCommand, changed_since
from snakemake_executor_flux.steps.choice import StepChoice
from snakemake_executor_flux.steps.nested import decode_target_jobs, encode_target_jobs, format_value
from snakemake_executor_flux.steps.pending import Unresolved, check_text, check_values
from snakemake_executor_flux.steps.snakemake import Program

Spec = namedtuple("Spec", "rulename wildcards_dict")
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(_TEXT, st.dictionaries(_TEXT, _TEXT))))
def test_names_and_wildcards_reach_a_nested_snakemake_exactly(jobs: list[tuple[str, dict[str, str]]]) -> None:
    words = encode_target_jobs([Spec(*job) for job in jobs])
    through_a_shell = shlex.split(shlex.join(words))
    assert [tuple(spec) for spec in decode_target_jobs(through_a_shell)] == jobs


@given(_TEXT)
def test_a_value_of_a_nested_snakemake_is_one_word_of_a_shell(text: str) -> None:
    assert shlex.split(format_value(text)) == [text]
    assert shlex.split(format_value(Path(text))) == [str(Path(text))]


def test_a_run_is_resumed_in_its_directory_only(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    first = RunFile(place)
    assert not first.resumed
    first.let_go()
    (tmp_path / "link").symlink_to(place)
    for name in ("place", "link"):
        again = RunFile(tmp_path / name)
        assert again.resumed and again.id == first.id
        again.let_go()
    shutil.copytree(place, tmp_path / "copy")
    copy = RunFile(tmp_path / "copy")
    assert not copy.resumed and copy.id != first.id
    copy.let_go()
    assert RunFile(tmp_path / "copy").resumed  # a run of its own from now on
    place.rename(tmp_path / "moved")
    assert not RunFile(tmp_path / "moved").resumed


def test_a_snakemake_beside_a_living_one_has_a_run_of_its_own(tmp_path: Path) -> None:
    first = RunFile(tmp_path)
    beside = RunFile(tmp_path)
    assert beside.has_company and not beside.resumed and beside.id != first.id
    beside.remove()
    first.let_go()  # killed: its jobs are found by the next one
    after = RunFile(tmp_path)
    assert after.resumed and after.id == first.id
    after.remove()
    assert not RunFile(tmp_path).resumed


def stable(value: object) -> str:
    """The text of another process, whose hashes differ."""
    code = "import sys, pickle, base64\nfrom snakemake_executor_flux.identity import stable_text\n"
    code += f"print(stable_text({value}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_same_params_are_the_same_text_in_every_process() -> None:
    value = "[{'aa', 'bb', 'cc', 'dd'}, {'x': frozenset('abc')}, range(3), 1.5, b'x', None]"
    assert stable(value) == stable(value)


def test_a_value_is_told_by_all_of_it_and_not_by_what_it_prints() -> None:
    class Silent:
        def __init__(self, content: int) -> None:
            self.content = content

        def __repr__(self) -> str:
            return "..."

        def __reduce__(self) -> tuple[type, tuple[int]]:
            return int, (self.content,)

    assert stable_text(Silent(1)) != stable_text(Silent(2))
    assert stable_text(Silent(1)) == stable_text(Silent(1))
    assert stable_text(lambda: None), "what pickle cannot hold"


def test_a_copy_that_took_the_place_of_its_original_is_another_run(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    first = RunFile(place)
    place.rename(tmp_path / "original")
    shutil.copytree(tmp_path / "original", place)
    assert RunFile(place).id != first.id


def test_a_run_file_that_was_cut_off_is_none(tmp_path: Path) -> None:
    first = RunFile(tmp_path)
    file = tmp_path / ".snakemake" / "flux_operator_run.json"
    file.write_text(file.read_text()[:10])
    assert RunFile(tmp_path).id != first.id


def test_scripts_are_told_by_run_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert leftovers.paths_of_job("ab.1.cd") == ()
    directory = tmp_path / ".snakemake" / "scripts"
    directory.mkdir(parents=True)
    mine = directory / f"tmpx_1.{leftovers.owner('12ab', 'ab.1.cd')}.plot.py"
    other = directory / f"tmpx_2.{leftovers.owner('12ab', 'ab.2.cd')}.plot.py"
    old = directory / f"tmpx_3.{leftovers.owner('99', 'ab.1.cd')}.R"
    foreign = directory / "tmpx_4.plot.py"
    mine_long = leftovers.new_directory(leftovers.owner("12ab", "ab.1.cd"))
    other_long = leftovers.new_directory(leftovers.owner("12ab", "ab.2.cd"))
    old_long = leftovers.new_directory(leftovers.owner("99", "ab.1.cd"))
    foreign_long = tmp_path / ".snakemake" / "shell_tmp.abcd"
    foreign_long.mkdir()
    for long in (mine_long, other_long, old_long, foreign_long):
        (long / "script.sh").touch()
    for path in (mine, other, old, foreign):
        path.touch()
    assert set(leftovers.paths_of_job("ab.1.cd")) == {mine, old, mine_long, old_long}
    leftovers.remove_of_other_runs("12ab")
    assert set(directory.iterdir()) == {mine, other, foreign}
    assert set(directory.parent.iterdir()) == {directory, mine_long, other_long, foreign_long}
    leftovers.remove_of_jobs(["ab.2.cd"])
    assert set(directory.iterdir()) == {mine, foreign}
    assert set(directory.parent.iterdir()) == {directory, mine_long, foreign_long}


def test_paths_of_options_are_relative_to_where_they_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ExecutorSettings(config=Path("run.yaml"), logdir=Path("logs"))
    monkeypatch.chdir("/")
    assert (settings.config, settings.logdir) == (tmp_path / "run.yaml", tmp_path / "logs")
    assert ExecutorSettings().config is None


def test_pilots_are_an_option_whose_value_is_checked() -> None:
    ExecutorSettings(pilot="auto").check()
    assert ExecutorSettings(pilot="auto").config_options()["run.pilot"] == "auto"
    assert ExecutorSettings().config_options()["run.pilot"] is None
    with pytest.raises(UserError, match=r"--flux-operator-pilot: 'maybe' is not one of auto, on, off"):
        ExecutorSettings(pilot="maybe").check()


class _Values(dict):  # type: ignore[type-arg]  # as Snakemake's, which iterate over their values
    def __iter__(self):  # type: ignore[no-untyped-def]  # an iterator
        return iter(self.values())


def _job(params: dict[str, object], resources: dict[str, object]) -> SimpleNamespace:
    return SimpleNamespace(params=_Values(params), resources=_Values(resources))


def test_a_command_with_an_open_value_is_never_made() -> None:
    job = _job({}, {})
    check_text(job, "echo /tmp", "echo {resources.tmpdir}")
    check_text(job, "echo '<TBD>'", "echo '<TBD>'")  # the workflow's own words
    with pytest.raises(Unresolved):
        check_text(job, "java -Dtmp=<TBD>", "java {params.java}")
    with pytest.raises(Unresolved):
        check_text(job, "echo '<TBD>' <TBD>", "echo '<TBD>' {params.java}")


@pytest.mark.parametrize("value", ["<TBD>", "-Dtmp=<TBD>", ["a", "<TBD>"], {"a": ["<TBD>/x"]}])
def test_what_a_script_would_be_given_is_looked_through(value: object) -> None:
    check_values(_job({"a": "/tmp", "b": [1, None]}, {"tmpdir": "/tmp"}))
    with pytest.raises(Unresolved, match="params"):
        check_values(_job({"a": value}, {"tmpdir": "/tmp"}))
    with pytest.raises(Unresolved, match="resources"):
        check_values(_job({}, {"tmpdir": value}))


def test_the_entry_of_nested_jobs_imports_nothing_of_ours() -> None:
    from snakemake_executor_flux.steps import nested
    from snakemake_executor_flux.steps.snakemake import python_program

    [python, option, text] = shlex.split(python_program("/opt/a b/python3", package=False).words)
    assert (python, option) == ("/opt/a b/python3", "-c")
    assert text == Path(nested.__file__).read_text()
    assert "import snakemake_executor_flux" not in text and "from snakemake_executor_flux" not in text
    assert os.path.basename(nested.__file__) == "nested.py"


def test_a_command_is_taken_in_its_thread_only_and_an_environment_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from snakemake.shell import shell

    from snakemake_executor_flux.steps import script

    monkeypatch.chdir(tmp_path)
    capture = script._Capture(leftovers.owner("12ab", "ab.1.cd"), cleanup=True)
    with script._capturing(capture), ThreadPoolExecutor(1) as others:
        for _ in range(2):
            assert shell("echo asked >> asked; echo 3.12", read=True).strip() == "3.12"
        with pytest.raises(script._Taken):
            shell("touch {name}", name="taken", threads=3)
        others.submit(shell, "touch run").result()
    shell("touch after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after", "asked", "run"]
    assert (tmp_path / "asked").read_text() == "asked\n"
    assert capture.command.endswith("touch taken") and capture.env["OMP_NUM_THREADS"] == "3"
    source = SimpleNamespace(path=SimpleNamespace(get_filename=lambda: "a.py"), get_preamble=lambda: "")
    source.write_script = lambda _, file: file.write(b"x")
    paths: list[str] = []
    source.execute_script = paths.append
    capture.write(source)
    assert paths == [str(tmp_path / ".snakemake" / "scripts" / Path(paths[0]).name)] == list(map(str, capture.scratch))
    capture.scratch.clear()
    # One that is too long for an argument lies in a directory, which belongs to the job.
    with script._capturing(capture), pytest.raises(script._Taken):
        shell("true " + "x" * 100_000)
    [directory] = capture.scratch
    assert f'"{directory}/script.sh"' in capture.command
    assert os.access(directory / "script.sh", os.X_OK)
    assert directory in leftovers.paths_of_job("ab.1.cd")
    assert [path.name for path in directory.parent.glob("shell_tmp.*")] == [directory.name]


def test_a_command_is_made_of_the_names_that_its_rule_sees() -> None:
    module: dict[str, object] = {"config": {"word": "module"}, "only": "here", "name": "global"}
    exec("def function(): pass", module)
    main = SimpleNamespace(globals={"config": {"word": "main"}, "word": "main"}, config={"word": "main"})
    rule = SimpleNamespace(name="part_a", run_func=module["function"], workflow=main, lineno=1, snakefile="module.smk")
    job = SimpleNamespace(rule=rule, threads=2, jobid=0)
    job.input = job.output = job.params = job.wildcards = job.resources = job.log = {}
    rule.shellcmd = "{config[word]} {only} {name} {rule} {threads} {more}"
    assert shell_text(job, more=3) == "module here global part_a 2 3"
    assert rule_globals(rule)["config"] == {"word": "module"}
    rule.shellcmd = "{word}"
    with pytest.raises(RuleException, match="The name 'word' is unknown"):
        shell_text(job)


def test_any_config_has_a_text_of_its_own() -> None:
    day = datetime.date(2024, 2, 3)
    config = {1: "a", "b": [day, {None: {2, "c"}}], day: (1.5, b"x"), (1, 2): {"d": None}}
    assert stable_text(config) == stable_text(dict(reversed(config.items())))
    for other in ({**config, 1: "z"}, {**config, "1": "a"}, {name: one for name, one in config.items() if name != 1}):
        assert stable_text(other) != stable_text(config)
    assert stable_text({1: "a"}) != stable_text({"1": "a"})
    config["all"] = config
    assert stable_text(config) == stable_text(config)


@pytest.mark.parametrize("where", ["choose_step", "prepare"])
def test_whatever_goes_wrong_with_one_job_is_that_jobs(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object) -> None:
        raise TypeError("'<' not supported")

    refused: list[object] = []
    executor = Executor.__new__(Executor)
    executor.logger = logging.getLogger("test")
    run: Any = SimpleNamespace(
        reporter=SimpleNamespace(refuse=lambda *said: refused.append(said)),
        preparation=SimpleNamespace(choose_step=lambda _: StepChoice("shell")),
    )
    monkeypatch.setattr(run.preparation, where, raising, raising=False)
    job = SimpleNamespace(jobid=1, name="a")
    assert executor._prepare(run, job, announced=True) is None
    assert refused == [(job, "TypeError: '<' not supported")]


def test_an_input_that_changed_since_makes_a_job_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("old", 100), ("new", 300), ("there", 300), ("age", 300)):
        Path(name).touch()
        os.utime(name, (seconds, seconds))
    Path("link").symlink_to("old")  # made now
    files = {name: IOFile(name, rule=None) for name in ("old", "new", "there", "missing", "link")}
    since = 200.0

    def changed(*names: str, made: tuple[str, ...] = ()) -> str | None:
        return changed_input(SimpleNamespace(input=[files[name] for name in names]), since, made)

    assert changed("old", "missing") is None
    assert changed("old", "new") == "new"
    assert changed("old", "link") == "link"
    assert changed("old", "there", made=("there",)) is None  # by a job that is taken up, too
    files["age"] = IOFile(ancient("age"), rule=None)
    assert changed("age") is None


def test_what_a_local_wrapper_holds_counts(tmp_path: Path) -> None:
    settings = SimpleNamespace(workflow_settings=SimpleNamespace(wrapper_prefix=None))
    job = SimpleNamespace(rule=SimpleNamespace(wrapper=f"file:{tmp_path}", workflow=settings))
    assert _content(job) is None
    (tmp_path / "wrapper.R").write_text("1")
    first = _content(job)
    (tmp_path / "wrapper.R").write_text("2")
    assert first is not None and _content(job) != first
    job.rule.wrapper = f"file:{tmp_path}/wrapper.R"
    assert _content(job) is not None
    job.rule.wrapper = "v5.0.0/bio/tool"
    assert _content(job) is None  # its address has its version


def test_a_change_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGED", "before")
    monkeypatch.setenv("GONE", "there")
    inherited = dict(os.environ)
    assert changed_since(inherited) == {}
    monkeypatch.setenv("CHANGED", "after")
    monkeypatch.setenv("ADDED", "")
    monkeypatch.delenv("GONE")
    assert changed_since(inherited) == {"CHANGED": "after", "ADDED": "", "GONE": None}


@pytest.mark.parametrize("step", ["shell", "script"])
@pytest.mark.parametrize("no_server", ["", "it is away"])
def test_a_job_that_only_a_nested_snakemake_can_tell_is_prepared_there_only(
    step: str, no_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job({"a": "<TBD>"}, {})
    job.rule = SimpleNamespace(name="a", shellcmd="echo {params}", run_func=None, workflow=SimpleNamespace(globals={}))
    job.input = job.output = job.wildcards = job.log = {}
    job.threads = job.jobid = 1
    job.name = "a"
    job.prepare = lambda: pytest.fail("it is prepared here, too")
    executor = SimpleNamespace(
        logger=logging.getLogger("test"), workflow=SimpleNamespace(workdir_init="/"), envvars=dict
    )
    warm = SimpleNamespace(against=lambda _: no_server, program=lambda *_: Program("client"))
    places = SimpleNamespace(python="python", package=True)
    instance: Any = SimpleNamespace(
        run=SimpleNamespace(id="12ab"), survivors=None, warm=warm, places=places, inherited=None
    )  # a part of it
    nested = StepCommand(["nested"])
    monkeypatch.setattr("snakemake_executor_flux.preparation.snakemake_command", lambda *_: nested)
    preparation = JobPreparation(executor, ExecutorSettings(), instance)
    expected = "snakemake" if no_server else "warm"
    assert preparation._command(job, step, "ab.1.cd", Path("record")) == (expected, nested)
