"""Nextflow's command lines, as its executor makes them -> what is asked for."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.flux_command.arguments import read
from executors.flux_command.asked import Cancel, Jobs, Other, Refused, Submit
from executors.flux_command.values import gpus, seconds, size

BEGIN = ["submit", "--setattr=cwd=/w", '--job-name="nf-A_(1)"', "--output=/w/.command.log"]
END = ["/bin/bash", ".command.run"]
MIB = 2**20


def submit(*words: str, name: str = "nf-A") -> Submit:
    asked = read(["submit", "--setattr=cwd=/w", f'--job-name="{name}"', "--output=/w/.command.log", *words, *END])
    assert isinstance(asked, Submit)
    return asked


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        ([*BEGIN, *END], Submit),
        (["submit", "--setattr=cwd=/w", '--job-name="x"', *END], Submit),
        (["submit", '--setattr=cwd="/a\\ b"', '--job-name="a b"', '--output="/a\\ b/.command.log"', *END], Submit),
        (["submit", "-n2", "hostname"], Other),
        (["submit", "--setattr=cwd=/w", "--job-name=x", *END], Other),
        (["submit"], Other),
        (["jobs", "--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m"], Jobs),
        (
            ["jobs", "--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m", "--queue=q", "--user=u"],
            Jobs,
        ),
        (["jobs", "--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m", "-a"], Other),
        (["jobs"], Other),
        (["jobs", "-a"], Other),
        (["job", "cancel", "f1"], Cancel),
        (["job", "cancel", "f1", "f2"], Cancel),
        (["cancel", "f1"], Cancel),
        (["job", "cancel"], Other),
        (["cancel", "--all"], Other),
        (["job", "attach", "f1"], Other),
        (["run", "-n4", "mpi"], Other),
        (["--version"], Other),
        ([], Other),
    ],
)
def test_only_nextflows_own_forms_are_ours(argv: list[str], kind: type) -> None:
    assert isinstance(read(argv), kind)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ([], "cores", 1),
        (["--cores-per-task=4"], "cores", 4),
        (["-c", "3"], "cores", 3),
        (["-n4"], "cores", 4),
        (["--ntasks=2", "--cpus-per-task=3"], "cores", 6),
        (["--time-limit=02"], "limit", 120.0),
        (["--time-limit=1560"], "limit", 93600.0),
        (["--time-limit=00"], "limit", 60.0),
        (["--time-limit=01", "--time-limit=20s"], "limit", 20.0),
        (["--time-limit=01", "--time-limit=5"], "limit", 300.0),
        (["--time=1:30"], "limit", 90.0),
        (["--time=02:00:00"], "limit", 7200.0),
        (["--time=1-00:00:00"], "limit", 86400.0),
        (["--queue=long"], "queue", "long"),
        (["-p", "short"], "queue", "short"),
        (["--queue=a", "-pb"], "queue", "b"),
        (["--account=me"], "bank", "me"),
        (["-A", "me"], "bank", "me"),
        (["--mem=4G"], "memory", 4 * 2**30),
        (["--mem=100"], "memory", 100 * MIB),
        (["--memory=1.5GB"], "memory", 1536 * MIB),
        (["--mem-per-cpu=100M", "-c4"], "memory", 400 * MIB),
        (["--setattr=user.mem_mb=300"], "memory", 300 * MIB),
        (["--gpus-per-task=2"], "gpus", 2),
        (["--gres=gpu:a100:3"], "gpus", 3),
        (["--gres=gpu"], "gpus", 1),
        (["-G2"], "gpus", 2),
        (["--urgency=3"], "urgency", 3),
        (["--env=A=b", "--env=-C"], "env", (("A", "b"), ("C", None))),
        (["-o", "cpu-affinity=off"], "shell_options", (("cpu-affinity", "off"),)),
        (["-overbose"], "shell_options", (("verbose", "1"),)),
        (["--setattr=user.x=1"], "attributes", (("user.x", "1"),)),
    ],
)
def test_options_are_understood(words: list[str], field: str, value: object) -> None:
    assert getattr(submit(*words), field) == value


@pytest.mark.parametrize(
    "word",
    ["--qos=low", "--constraint=x", "-Ctype", "--reservation=r", "--exclusive", "--what=ever", "--gres=lscratch:100"],
)
def test_what_has_no_effect_is_told(word: str) -> None:
    asked = submit("--cores-per-task=2", word, "--queue=q")
    assert asked.cores == 2 and asked.queue == "q"
    [note] = asked.notes
    assert word in note


@pytest.mark.parametrize(
    "words",
    [
        ['--env=FOO="a', 'b"'],
        ["--cores-per-task=none"],
        ["--cores-per-task=0"],
        ["--mem=lots"],
        ["--gres=gpu:a:b:c"],
        ["--time-limit=soon"],
        ["--nodes=2"],
        ["-N4"],
        ["--setattr=user.mem_mb=x"],
        ["stray"],
    ],
)
def test_what_cannot_be_obeyed_names_cluster_options(words: list[str]) -> None:
    with pytest.raises(Refused, match="clusterOptions"):
        submit(*words)


def test_the_value_of_an_option_that_is_not_known_goes_with_it() -> None:
    asked = submit("-l", "h_vmem=4G", "--what", "ever", "-c2")
    assert asked.cores == 2 and len(asked.notes) == 2


def test_a_name_carries_what_nextflow_does_not_pass_on() -> None:
    asked = submit("--time-limit=01", name="fxo:t90:m4096:g2 nf-A (x 'é' \"y\")")
    assert (asked.limit, asked.memory, asked.gpus) == (90.0, 4096 * MIB, 2)
    assert asked.name == "nf-A (x 'é' \"y\")"
    assert submit(name="fxo:m1:i nf-A").ignored and not submit(name="fxo:m1 nf-A").ignored
    assert submit("--time-limit=00", name="fxo:t30 nf-A").notes == ()


def test_cluster_options_count_more_than_what_the_name_carries() -> None:
    asked = submit("--time-limit=01", "--time-limit=20s", "--mem=1G", name="fxo:t90:m4096 nf-A")
    assert (asked.limit, asked.memory) == (20.0, 2**30)


def test_a_name_of_the_users_own_is_left_alone() -> None:
    assert submit(name="fxo").name == "fxo"
    assert submit(name="fxo:t5").limit is None
    assert submit(name="").name == ""
    assert submit(name="fxo nf-A (a\nb)").name == "nf-A (a b)"


def test_without_output_to_the_log_it_goes_nowhere() -> None:
    asked = read([*BEGIN[:3], *END])
    assert isinstance(asked, Submit) and not asked.logged
    assert submit().logged


def test_the_program_is_nextflows_wrapper() -> None:
    assert submit().argv == ("/bin/bash", ".command.run")


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20), max_size=6))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(read([*BEGIN, *words, *END]), Submit)


@given(st.lists(st.text(max_size=10), max_size=6))
def test_any_command_line_is_somebodys(argv: list[str]) -> None:
    assert isinstance(read(argv), Other | Jobs | Cancel | Submit)


@pytest.mark.parametrize(
    ("text", "value"), [("inf", 0.0), ("0", 0.0), ("1.5h", 5400.0), ("250ms", 0.25), ("2-12", 216000.0)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("function", [seconds, size, gpus])
def test_nonsense_is_no_value(function: object) -> None:
    with pytest.raises(ValueError):
        function("x:y:z q")  # type: ignore[operator]
