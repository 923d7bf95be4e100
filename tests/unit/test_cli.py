"""The command line without any instance: parsing, files, texts of errors, exit codes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from executors.cli.common import FAILED, INTERRUPTED, RUN_FAILED, TIMED_OUT, UNREAD, WRONG_INPUT, Duration, copy_output
from executors.cli.main import MODULES, main
from executors.errors import SessionClosedError

COMMANDS = {
    command.name: command
    for module in sorted(set(MODULES.values()))
    for command in importlib.import_module(f"executors.cli.{module}").COMMANDS
}
MINICLUSTER = """\
apiVersion: flux-framework.org/v1alpha2
kind: MiniCluster
metadata: {name: lammps}
spec:
  size: 2
  flux: {container: {disable: true}}
  containers: [{image: example.org/lammps:1, command: lmp -in in.lj}]
"""


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No instance, no cluster and no setting of this machine."""
    for name in ("FLUX_URI", "KUBECONFIG", "FLUX_OPERATOR_PROVISIONER", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def call(*words: str) -> Result:
    result = CliRunner().invoke(main, words, prog_name="flux-minicluster")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def wrong(*words: str, code: int = 2) -> str:
    """What a command that must fail says; nothing of it is on stdout, where its output would be."""
    result = call(*words)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return result.stderr


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "lammps.yaml").write_text(MINICLUSTER)
    return "lammps.yaml"


def test_render_prints_the_objects_as_yaml(file: str) -> None:
    objects = list(yaml.safe_load_all(call("render", file).stdout))
    assert sorted(one["kind"] for one in objects) == ["ConfigMap", "Job", "Secret", "Service"]
    [job] = [one for one in objects if one["kind"] == "Job"]
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("lammps", "default")
    assert job["spec"]["completions"] == 2


def test_render_takes_another_name_and_namespace_and_prints_json(file: str) -> None:
    items = json.loads(call("render", file, "--name", "n", "--namespace", "space", "--json").stdout)["items"]
    assert {one["metadata"]["namespace"] for one in items} == {"space"}
    assert [one["metadata"]["name"] for one in items if one["kind"] == "Job"] == ["n"]


def test_render_says_what_direct_mode_cannot_do(file: str) -> None:
    Path(file).write_text(MINICLUSTER.replace("spec:\n", "spec:\n  pod: {restartPolicy: Always}\n"))
    said = wrong("render", file)
    assert said.startswith("flux-minicluster: lammps.yaml: minicluster.pod.restartPolicy: 'Always'")


def test_validate_says_that_a_file_is_valid_and_what_of_it_a_run_does_not_use(file: str) -> None:
    result = call("validate", file)
    assert (result.exit_code, result.stdout) == (0, "lammps.yaml: valid\n")
    assert "not used by workflow runs" in result.stderr and "minicluster.containers[0].command" in result.stderr


def test_validate_says_what_render_refuses_of_a_minicluster(file: str) -> None:
    Path(file).write_text(MINICLUSTER.replace("name: lammps", "name: Lammps_1"))
    said = call("validate", file).stderr
    assert "`render` refuses: name: 'Lammps_1' must begin with a letter" in said
    assert json.loads(call("validate", file, "--json").stdout)["not_rendered"] == [
        wrong("render", file).removeprefix("flux-minicluster: lammps.yaml: ").strip()
    ]


def test_validate_says_everything_that_is_wrong(file: str) -> None:
    text = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {idleTimeut: 5, orphanTimeout: -1}\n"
    Path(file).write_text(text)
    said = wrong("validate", file)
    assert "did you mean run.idleTimeout?" in said and "run.orphanTimeout: -1" in said and "2 problems" in said
    result = call("validate", file, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["valid"], len(found["problems"])) == (2, False, 2)


def test_validate_tells_where_each_value_came_from(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_OPERATOR_IDLE_TIMEOUT", "7")
    assert "run.idleTimeout = 7.0 (environment FLUX_OPERATOR_IDLE_TIMEOUT)" in call("validate", file, "-v").stdout
    found = json.loads(call("validate", file, "--json").stdout)
    assert found["valid"] and "run.idleTimeout = 7.0 (environment FLUX_OPERATOR_IDLE_TIMEOUT)" in found["values"]


@pytest.mark.parametrize("command", ["render", "validate"])
def test_a_file_that_is_not_there_is_named(command: str) -> None:
    assert wrong(command, "no.yaml") == "flux-minicluster: no.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (["run"], "Missing argument 'ARGV...'"),
        (["run", "--bogus", "--", "true"], "No such option '--bogus'"),
        (["run", "-N", "0", "--", "true"], "0 is not in the range x>=1"),
        (["run", "-t", "-1", "--", "true"], "'-1' is not a number of seconds"),
        (["run", "-t", "5 min", "--", "true"], "'5 min' is not a number of seconds, nor one with a unit"),
        (["run", "-t", "nan", "--", "true"], "'nan' is not a number of seconds"),
        (["run", "--cwd", "/nowhere", "--", "true"], "--cwd /nowhere: there is no such directory on this machine"),
        (["run", "--context", "a", "--", "true"], "--context has no effect with the provisioner local; add"),
        (["run", "--env", "A", "--", "true"], "'A' is not NAME=VALUE"),
        (["run", "--env", "=A", "--", "true"], "'' cannot be the name of an environment variable"),
        (["run", "-N", "2", "-n", "1", "--", "true"], "2 nodes for 1 tasks"),
        (["run", "--provisioner", "mars", "--", "true"], "'mars' is not one of"),
        (["run", "--config", "no.yaml", "--", "true"], "no.yaml: cannot be read"),
        (["run", "--provisioner", "direct", "--", "true"], "no Kubernetes cluster is known"),
        (["run", "--provisioner", "attach", "--", "true"], "FLUX_URI is not set"),
    ],
)
def test_run_ends_with_125_for_all_that_is_not_the_jobs_own(words: list[str], said: str) -> None:
    assert said in wrong(*words, code=125)


def test_run_refuses_more_nodes_than_the_configs_minicluster_has(file: str) -> None:
    said = wrong("run", "--provisioner", "direct", "--config", file, "-N", "3", "--", "true", code=125)
    assert "-N 3: the config's MiniCluster has minicluster.size 2; raise that" in said


@pytest.mark.parametrize(
    "words, said",
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["up"], "give --name, or a --config"),
        (["up", "--name", ""], "give --name, or a --config"),
        (["down"], "give --name, or a --config"),
        (["down", "a", "--name", "a"], "not both"),
        (["cancel", "a"], "give either job ids or --all"),
        (["cancel", "a", "f1", "--all"], "give either job ids or --all"),
        (["resize", "a", "0"], "0 is not in the range x>=1"),
        (["resize", "a", "1", "--grace", "-1"], "'-1' is not a number of seconds"),
        (["list", "--namespace", "hpc"], "--namespace has no effect with the provisioner local; add --provisioner"),
        (["doctor", "--provisioner", "attach", "--kubeconfig", "k"], "--kubeconfig has no effect with the provisioner"),
        (["nextflow", "--namespace", "hpc", "--", "true"], "--namespace has no effect with the provisioner local"),
        (["list", "--provisioner", "direct"], "no Kubernetes cluster is known"),
        (["list", "--kubeconfig", "/no", "--provisioner", "direct"], "'/no' is not a file; give a kubeconfig"),
        (["status"], "Missing argument 'INSTANCE'"),
    ],
)
def test_wrong_input_is_told_with_exit_code_2(words: list[str], said: str) -> None:
    assert said in wrong(*words)


@pytest.mark.parametrize(
    "text, seconds", [("90", 90.0), ("1.5h", 5400.0), ("5m", 300.0), ("200ms", 0.2), (".5d", 43200.0), ("3s", 3.0)]
)
def test_a_time_may_have_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


def test_an_output_that_ends_before_its_job_is_one_error() -> None:
    """The session ends under both streams; one of them is copied by a thread."""

    def output(stream: str) -> Iterator[bytes]:
        if stream == "stderr":
            raise SessionClosedError("the instance has ended")
        yield b""

    with pytest.raises(SessionClosedError, match="the instance has ended"):
        copy_output(output)


@pytest.mark.parametrize("program", ["executors.cli.main", "executors.controller.main"])
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_an_output_that_takes_no_more_is_told_in_one_line(program: str, words: list[str]) -> None:
    code = f"from {program} import main; main()"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(r"flux-\w+: cannot write: No space left on device\n", done.stderr)


def test_doctor_says_how_to_give_it_a_cluster() -> None:
    result = call("doctor")
    assert result.exit_code == 1
    assert result.stdout.startswith("MISSING  kubeconfig: no Kubernetes cluster is known")
    assert "give --kubeconfig, KUBECONFIG or run.kubeconfig" in result.stdout


def test_doctor_of_this_machine_says_what_attaching_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = call("doctor", "--provisioner", "attach", "--json")
    found = {one["what"]: one for one in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert found["Flux"]["ok"] is False and "docs/install.md" in found["Flux"]["cure"]
    assert found["FLUX_URI"]["ok"] is False and "flux alloc" in found["FLUX_URI"]["cure"]


def test_doctor_is_content_without_flux_where_the_embedded_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = call("doctor", "--provisioner", "local")
    assert (
        result.exit_code == 0 and "unknown  Flux: no flux is on PATH, so jobs run as local processes" in result.stdout
    )


def test_every_command_and_option_says_what_it_does_and_what_happens_without_it() -> None:
    for command in COMMANDS.values():
        assert command.help, command.name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)
                takes_value = not parameter.is_flag and not parameter.multiple
                told = parameter.show_default or "Default: " in parameter.help or parameter.name == "name"
                assert told or not takes_value, (command.name, parameter.name)


@pytest.mark.parametrize(
    "words, found", [("st", "status"), ("render --na", "--name"), ("up --provisioner d", "direct")]
)
def test_a_shell_completes_commands_options_and_values(words: str, found: str) -> None:
    count = len(words.split())
    env = {"_FLUX_MINICLUSTER_COMPLETE": "bash_complete", "COMP_WORDS": f"flux-minicluster {words}"}
    result = CliRunner().invoke(main, env={**env, "COMP_CWORD": str(count)}, prog_name="flux-minicluster")
    assert f"plain,{found}" in result.output.splitlines()


def _sections() -> dict[str, str]:
    """The parts of docs/cli.md by heading."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    return {part.split("\n", 1)[0]: part for part in page.split("\n## ")[1:]}


def _options_said(section: str) -> set[str]:
    """The options in the first column of a section's tables."""
    cells = re.findall(r"(?m)^\| (`-.*?) \|", section.replace("\\|", "/"))
    return {option for cell in cells for option in re.findall(r"`(--?[a-zA-Z-]+)", cell)}


def _options_of(command: click.Command) -> set[str]:
    return {option for one in command.params if isinstance(one, click.Option) for option in one.opts}


def test_the_page_has_every_command_with_an_example_and_its_options_and_no_other() -> None:
    sections = _sections()
    shared = _options_said(sections["Where instances are"])
    there = {name: _options_of(command) - {"--json"} for name, command in COMMANDS.items()}
    assert {name for name in sections if name.islower()} == set(there)
    for name, options in there.items():
        own = options if name in ("render", "validate") else options - shared
        assert _options_said(sections[name]) == own, name
        assert f"    $ flux-minicluster {name} " in sections[name], name
        assert shared <= options or name in ("render", "validate"), name


def test_the_page_has_the_shape_of_every_commands_json() -> None:
    said = set(re.findall(r"(?m)^\| `([a-z]+)` \|", _sections()["JSON"]))
    assert said == {name for name, command in COMMANDS.items() if "--json" in _options_of(command)}


def test_the_page_has_the_commands_own_exit_codes() -> None:
    said = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", _sections()["Exit codes"])}
    assert said == {0, FAILED, WRONG_INPUT, TIMED_OUT, RUN_FAILED, INTERRUPTED, UNREAD}


def test_the_pages_lines_of_options_are_taken_by_the_commands() -> None:
    """Each example's words are parsed; nothing is run."""
    for line in re.findall(r"(?m)^    \$ flux-minicluster (.*)$", "".join(_sections().values())):
        words = shlex.split(line.split(" | ")[0].replace("2>/dev/null", ""))
        COMMANDS[words[0]].make_context(words[0], words[1:])


def test_each_command_is_found() -> None:
    context = click.Context(main)
    assert {name: main.get_command(context, name) for name in main.list_commands(context)} == COMMANDS
    assert main.get_command(context, "none") is None
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_running_a_job_loads_nothing_of_kubernetes() -> None:
    code = "import sys, executors.cli.jobs; print(*[name for name in sys.modules if name.startswith('executors.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("executors.kube", "executors.render"))]
