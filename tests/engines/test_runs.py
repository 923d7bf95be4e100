"""A whole run: failures, interruption, death, re-attachment, what is left behind, what is said."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.engines.conftest import LIMIT, Run, Snakemake, environment, run_snakemake, words
from tests.processes import kill_agent, of_run
from tests.support import prepared

#: The tests set the engine; without Flux's there is nothing to attach to.
ATTACH_REFUSED = {
    "flux": "FLUX_URI is not set",
    "embedded": "embedded cannot be used with the provisioner attach",
}
SLOW = """
rule all:
    input: "a", "b"
rule slow:
    output: "{name}", touch("{name}.extra")
    wildcard_constraints: name="[ab]"
    shell: "echo ran >> ran.{wildcards.name}; while [ ! -e go ]; do sleep 0.05; done; echo done > {output[0]}"
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Background:
    """A Snakemake that runs while the test does something to it."""

    def __init__(self, directory: Path, engine: str, *arguments: str, **env: str) -> None:
        self.log = directory / "snakemake.out"
        environ = environment(engine, **env)
        with self.log.open("ab") as out:
            file = out.fileno()
            self.process = prepared.snakemake(environ).start(
                words("--nolock", *arguments), directory, environ, file, file, new_session=True
            )

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def output(self) -> str:
        return self.log.read_text()


@pytest.fixture
def background(engine: str, tmp_path: Path) -> Iterator[Callable[..., Background]]:
    started: list[Background] = []

    def start(snakefile: str, *arguments: str, **env: str) -> Background:
        if snakefile:
            (tmp_path / "Snakefile").write_text(snakefile)
        started.append(Background(tmp_path, engine, *arguments, **env))
        return started[-1]

    yield start
    (tmp_path / "go").touch()  # whatever still runs may end
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(LIMIT)


def make_run_id(directory: Path) -> str:
    """The id of the run that a workflow directory has now."""
    return re.findall(r'"id": "(\w+)"', (directory / ".snakemake" / "flux_operator_run.json").read_text())[0]


def instances(directory: Path) -> list[str]:
    """Processes (agents, brokers, jobs) that work in or for a directory."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        found += [" ".join(argv) for _, argv in of_run(make_run_id(directory))]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(directory) and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
    return found


def test_nothing_is_left_after_a_run(snakemake: Snakemake, tmp_path: Path) -> None:
    run = snakemake('rule a:\n    output: "a"\n    shell: "echo a > {output}"\n')
    assert run.returncode == 0, run.output
    assert not instances(tmp_path)
    assert not (tmp_path / ".snakemake" / "flux_operator_run.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".snakemake", "Snakefile", "a"]
    assert "provisioner: local" in run.output


def test_a_failed_job_says_all_that_a_user_needs(snakemake: Snakemake) -> None:
    run = snakemake('rule a:\n    output: "a"\n    shell: "echo the reason >&2; exit 7"\n')
    assert run.returncode == 1
    assert f"The job failed on {os.uname().nodename} with exit code 7." in run.output
    assert "    the reason" in run.output
    [log] = re.findall(r"Last lines of (\S+):", run.output)
    assert Path(log).read_text() == "the reason\n"
    assert re.search(r"external_jobid: \S+/\w+", run.output)


def test_death_by_a_signal_is_named(snakemake: Snakemake) -> None:
    run = snakemake('rule a:\n    output: "a"\n    shell: "kill -SEGV $$"\n')
    assert run.returncode == 1
    assert "by signal 11 (SIGSEGV)" in run.output


def test_the_others_go_on_when_asked(snakemake: Snakemake, tmp_path: Path) -> None:
    text = """
rule all:
    input: "bad", "good", "unfit"
rule bad:
    output: "bad"
    shell: "false"
rule unfit:
    output: "unfit"
    resources: gpu=1
    shell: "touch {output}"
rule good:
    output: "good"
    shell: "touch {output}"
"""
    run = snakemake(text, "--keep-going")
    assert run.returncode == 1
    assert (tmp_path / "good").exists()
    assert "exit code 1" in run.output and "unsatisfiable" in run.output


def test_a_job_that_cannot_be_prepared_fails_alone(snakemake: Snakemake, tmp_path: Path) -> None:
    text = """
rule all:
    input: "x", "other"
rule blocked:
    output: "x"
    resources: tmpdir="blocked/tmp"
    shell: "touch {output}"
rule other:
    output: "other"
    shell: "touch {output}"
"""
    (tmp_path / "blocked").write_text("a file where a directory has to be")
    run = snakemake(text, "--keep-going")
    assert run.returncode == 1
    assert "could not be submitted" in run.output and "blocked" in run.output
    assert (tmp_path / "other").exists()


def test_failed_jobs_are_tried_again(snakemake: Snakemake, tmp_path: Path) -> None:
    text = 'rule a:\n    output: "a"\n    shell: "echo x >> tries; test $(wc -l < tries) -ge 3; touch {output}"\n'
    run = snakemake(text, "--retries", "3")
    assert run.returncode == 0, run.output
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    assert [row["attempt"] for row in run.efficiency()] == ["1", "2", "3"]


def test_the_efficiency_table_says_what_jobs_used(snakemake: Snakemake) -> None:
    text = """
rule a:
    output: "a"
    resources: mem_mb=100
    shell: "python3 -c 'x = bytearray(50_000_000); sum(range(5_000_000))'; touch {output}"
"""
    run = snakemake(text)
    assert run.returncode == 0, run.output
    [row] = run.efficiency()
    assert (row["rule"], row["outcome"], row["step"], row["cores"], row["mem_asked_mb"]) == (
        "a", "COMPLETED", "shell", "1", "100",
    )  # fmt: skip
    assert 0.01 < float(row["cpu_s"]) <= float(row["wall_s"]) * 2
    assert 50 < float(row["max_rss_mb"]) < 500
    assert "flux-operator: 1 job, used" in run.output


def test_an_interrupt_cancels(background: Callable[..., Background], tmp_path: Path) -> None:
    run = background(SLOW)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() != 0
    assert not (tmp_path / "a").exists()
    wait_for(lambda: not instances(tmp_path), "nothing is left")


def test_a_second_interrupt_ends_the_run_at_once_and_says_so(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    run = background(SLOW.replace("echo ran", "trap '' INT TERM; echo ran"))
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: "Terminating processes" in run.output(), "Snakemake takes the signal")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() != 0
    assert "interrupted again" in run.output() and "Traceback" not in run.output()
    wait_for(lambda: not instances(tmp_path), "nothing is left")


def test_quiet_rules_leave_no_error_out(snakemake: Snakemake) -> None:
    text = """
rule a:
    output: "a"
    log: "a.log"
    shell: "echo the reason >&2; exit 7"
"""
    run = snakemake(text, "--quiet", "rules")
    assert run.returncode != 0
    assert "Error in rule a: The job failed on " in run.output and "with exit code 7" in run.output
    assert "    the reason\n" in run.output


def test_sigterm_lets_running_jobs_finish(background: Callable[..., Background], tmp_path: Path) -> None:
    run = background(SLOW)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    run.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Will exit after finishing" in run.output(), "Snakemake takes the signal")
    (tmp_path / "go").touch()
    run.wait()
    assert (tmp_path / "a").read_text() == "done\n"
    wait_for(lambda: not instances(tmp_path), "nothing is left")


@pytest.mark.parametrize("rerun", [["--rerun-incomplete"]])
def test_after_kill_9_the_next_snakemake_takes_up_the_running_jobs(
    background: Callable[..., Background], tmp_path: Path, rerun: list[str]
) -> None:
    first = background(SLOW)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    wait_for(lambda: len(list((tmp_path / ".snakemake/incomplete").rglob("*"))) >= 4, "markers are written")
    first.process.kill()
    first.process.wait(LIMIT)
    second = background("", *rerun)
    wait_for(lambda: second.output().count("is attached to job") == 2, "it attaches to both jobs")
    (tmp_path / "go").touch()
    assert second.wait() == 0, second.output()
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "done\n"
    for name in "ab":
        assert (tmp_path / f"ran.{name}").read_text() == "ran\n", "no job has run twice"
    wait_for(lambda: not instances(tmp_path), "nothing is left")


def end_while_nobody_watches(background: Callable[..., Background], directory: Path) -> None:
    """Both jobs of `SLOW`, whose Snakemake is killed."""
    first = background(SLOW)
    wait_for(lambda: (directory / "ran.a").exists() and (directory / "ran.b").exists(), "the jobs run")
    first.process.kill()
    first.process.wait(LIMIT)
    (directory / "go").touch()
    wait_for(lambda: (directory / "a").exists() and (directory / "b").exists(), "the jobs end by themselves")


def test_a_job_that_ended_while_nobody_watched_is_not_run_again(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    end_while_nobody_watches(background, tmp_path)
    second = background("", "--rerun-incomplete")
    assert second.wait() == 0, second.output()
    assert (tmp_path / "ran.a").read_text() == "ran\n"


SCRIPTED = """
rule all:
    input: "a", "b"
rule slow:
    output: "{name}"
    wildcard_constraints: name="[ab]"
    script: "slow.py"
"""
SCRIPT = """
import os, time
name = snakemake.wildcards.name
open("ran." + name, "a").write("ran\\n")
while not os.path.exists("go"):
    time.sleep(0.05)
open(snakemake.output[0], "w").write("done\\n")
"""


def test_scripts_of_a_killed_snakemake_go_on_and_leave_nothing(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    first = background(SCRIPTED)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    first.process.kill()
    first.process.wait(LIMIT)
    scripts = tmp_path / ".snakemake" / "scripts"
    assert len(list(scripts.iterdir())) == 2
    # One of them is wanted no more: a run that does not ask for it removes its script, too.
    second = background("", "--rerun-incomplete", "a")
    wait_for(lambda: second.output().count("is attached to job") == 1, "it attaches to the job")
    (tmp_path / "go").touch()
    assert second.wait() == 0, second.output()
    assert (tmp_path / "a").read_text() == "done\n" and (tmp_path / "ran.a").read_text() == "ran\n"
    assert not list(scripts.iterdir())


def test_a_changed_job_replaces_the_running_one(background: Callable[..., Background], tmp_path: Path) -> None:
    first = background(SLOW)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    first.process.kill()
    first.process.wait(LIMIT)
    second = background(SLOW.replace("echo done >", "echo changed >"), "--rerun-incomplete")
    wait_for(lambda: (tmp_path / "ran.a").read_text() == "ran\nran\n", "the new job runs")
    (tmp_path / "go").touch()
    assert second.wait() == 0, second.output()
    assert "are replaced by a new one" in second.output()
    assert (tmp_path / "a").read_text() == "changed\n"


SAME = """
shell.prefix("mode=" + config["value"] + "; ")
rule by_conda:
    output: "a"
    conda: "env.yaml"
    params: name="a"
    script: "slow.py"
rule by_set:
    output: "b"
    params: name="b", genes={"aa", "bb", "cc", "dd"}
    script: "slow.py"
rule by_position:
    output: "c"
    params: config["value"], name="c"
    script: "slow.py"
rule by_prefix:
    output: "d"
    shell: "echo ran >> ran.d; until [ -e go ]; do sleep 0.1; done; echo $mode > {output}"
"""


@pytest.mark.parametrize("same, wanted", [(True, "ab"), (False, "cd")], ids=["same", "other"])
def test_what_a_job_does_is_all_that_tells_whether_it_is_the_same(
    same: bool, wanted: str, background: Callable[..., Background], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        SCRIPT.replace("snakemake.wildcards.name", "snakemake.params.name").replace(
            '"done\\n"', 'str(list(snakemake.params)[0]) + "\\n"'
        )
    )
    (tmp_path / "env.yaml").write_text("dependencies: [python]\n")
    jobs = [tmp_path / f"ran.{name}" for name in wanted]
    values = ("old", "old") if same else ("old", "new")
    first = background(SAME, *wanted, "--config", f"value={values[0]}")
    wait_for(lambda: all(one.exists() for one in jobs), "the jobs run")
    first.process.kill()
    first.process.wait(LIMIT)
    second = background("", *wanted, "--rerun-incomplete", "--config", f"value={values[1]}")
    times = 1 if same else 2
    said = "is attached to job" if same else "are replaced by a new one"
    wait_for(lambda: second.output().count(said) == 2, f"each job {said}")
    wait_for(lambda: all(one.read_text().count("ran") == times for one in jobs), "what is to run runs")
    (tmp_path / "go").touch()
    assert second.wait() == 0, second.output()
    assert all(one.read_text().count("ran") == times for one in jobs)
    if not same:
        assert [(tmp_path / name).read_text() for name in wanted] == ["new\n", "new\n"]


RETRIED = """
rule a:
    output: "a"
    benchmark: "a.tsv"
    retries: 1
    shell: "echo ran >> ran; [ $(wc -l < ran) = 2 ] || exit; until [ -e go ]; do sleep 0.1; done; echo done > {output}"
"""


def test_a_second_attempt_is_taken_up_with_its_log_and_benchmark(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    first = background(RETRIED)
    wait_for(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text().count("ran") == 2, "it is retried")
    first.process.kill()
    first.process.wait(LIMIT)
    second = background("", "--rerun-incomplete")
    wait_for(lambda: second.output().count("is attached to job") == 1, "it attaches to the job")
    (tmp_path / "go").touch()
    assert second.wait() == 0, second.output()
    assert (tmp_path / "ran").read_text() == "ran\nran\n"
    assert len((tmp_path / "a.tsv").read_text().splitlines()) == 2


def test_a_job_whose_output_was_removed_after_its_end_runs_again(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    end_while_nobody_watches(background, tmp_path)
    time.sleep(0.5)
    (tmp_path / "a").unlink()
    second = background("", "--rerun-incomplete")
    assert second.wait() == 0, second.output()
    assert "a, which an earlier job of slow has made, is gone" in second.output()
    assert (tmp_path / "ran.a").read_text() == "ran\nran\n" and (tmp_path / "ran.b").read_text() == "ran\n"


def test_a_snakemake_beside_another_leaves_that_ones_run_alone(
    background: Callable[..., Background], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SCRIPT)
    other = "rule other:\n    output: 'x'\n    shell: 'touch x'\nrule all"
    first = background(SCRIPTED.replace("rule all", other), "a")
    wait_for(lambda: (tmp_path / "ran.a").exists(), "the job runs")
    run_file = tmp_path / ".snakemake" / "flux_operator_run.json"
    before = run_file.read_text()
    second = background("", "--nolock", "x")
    assert second.wait() == 0, second.output()
    assert "another Snakemake works in this directory" in second.output() and (tmp_path / "x").exists()
    assert run_file.read_text() == before and len(list((tmp_path / ".snakemake" / "scripts").iterdir())) == 1
    (tmp_path / "go").touch()
    assert first.wait() == 0, first.output()


def test_a_job_whose_config_changed_is_not_taken_up(background: Callable[..., Background], tmp_path: Path) -> None:
    text = 'rule a:\n    output: "a"\n    shell: "echo x >> ran; sleep 3; echo {config[value]} > {output}"\n'
    first = background(text, "--config", "value=old")
    wait_for(lambda: (tmp_path / "ran").exists(), "the job runs")
    first.process.kill()
    first.process.wait(LIMIT)
    second = background("", "--rerun-incomplete", "--config", "value=new")
    assert second.wait() == 0, second.output()
    assert (tmp_path / "a").read_text() == "new\n"


def test_a_job_whose_input_changed_is_not_taken_up(background: Callable[..., Background], tmp_path: Path) -> None:
    (tmp_path / "in").write_text("old\n")
    text = 'rule a:\n    input: "in"\n    output: "a"\n    shell: "cat {input} > {output}; echo >> ran; sleep 1"\n'
    first = background(text)
    wait_for(lambda: (tmp_path / "ran").exists(), "the job runs")
    first.process.kill()
    first.process.wait(LIMIT)
    (tmp_path / "in").write_text("new\n")
    second = background("", "--rerun-incomplete")
    assert second.wait() == 0, second.output()
    assert (tmp_path / "a").read_text() == "new\n"


def test_an_old_failure_does_not_answer_for_a_new_run(background: Callable[..., Background], tmp_path: Path) -> None:
    text = 'rule a:\n    output: "a"\n    shell: "echo x >> tries; sleep 1; test -e fixed; touch {output}"\n'
    first = background(text)
    wait_for(lambda: (tmp_path / "tries").exists(), "the job runs")
    first.process.kill()
    first.process.wait(LIMIT)
    time.sleep(2)  # the subject: the job fails while nobody watches
    (tmp_path / "fixed").touch()
    second = background("", "--rerun-incomplete")
    assert second.wait() == 0, second.output()
    assert (tmp_path / "tries").read_text() == "x\nx\n"


def test_a_lost_agent_ends_the_run_with_its_reason(
    engine: str, background: Callable[..., Background], tmp_path: Path
) -> None:
    run = background(SLOW)
    wait_for(lambda: (tmp_path / "ran.a").exists() and (tmp_path / "ran.b").exists(), "the jobs run")
    assert kill_agent(make_run_id(tmp_path))
    assert run.wait() == 1
    assert "has an unknown end" in run.output() or "was cancelled" in run.output() or "was lost" in run.output()
    assert not (tmp_path / "a").exists()
    (tmp_path / "go").touch()


def test_the_instance_can_be_kept_after_a_failure(snakemake: Snakemake, tmp_path: Path) -> None:
    run = snakemake(
        'rule a:\n    output: "a"\n    shell: "false"\n',
        "--flux-operator-keep-on-failure", "--flux-operator-idle-timeout", "3",
    )  # fmt: skip
    assert run.returncode == 1
    assert "is kept until its idle time-out" in run.output
    assert instances(tmp_path)
    wait_for(lambda: not instances(tmp_path), "it ends by its idle time-out")


def test_a_log_directory_that_cannot_be_is_said_and_nothing_is_left(snakemake: Snakemake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = snakemake('rule a:\n    output: "a"\n    shell: "touch {output}"\n', "--flux-operator-logdir", "file/logs")
    assert run.returncode == 1
    assert "--flux-operator-logdir: logs cannot be written there" in run.output
    assert not instances(tmp_path) and not (tmp_path / ".snakemake" / "flux_operator_run.json").exists()


def test_mpi_by_flux_without_flux_is_refused_with_the_cure(tmp_path: Path) -> None:
    text = 'rule a:\n    output: "a"\n    resources: mpi="flux run", tasks=2\n    shell: "touch {output}"\n'
    run = run_snakemake(tmp_path, text, engine="embedded")
    assert run.returncode == 1
    assert "the embedded engine has no Flux to start tasks with" in run.output


def test_logs_go_where_asked(snakemake: Snakemake, tmp_path: Path) -> None:
    run = snakemake(
        'rule a:\n    output: "a"\n    shell: "echo hi; touch {output}"\n', "--flux-operator-logdir", "mylogs"
    )
    assert run.returncode == 0, run.output
    [log] = (tmp_path / "mylogs" / "a").iterdir()
    assert log.read_text() == "hi\n"
    assert (tmp_path / "mylogs" / "efficiency.tsv").exists()


def assert_named_before_anything_runs(run: Run, words: str) -> None:
    assert run.returncode != 0
    assert words in run.output
    assert "Traceback" not in run.output
    assert not (run.directory / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flux-operator-provisioner", "cloud"], "'cloud'"),
        (["--flux-operator-job-step", "fast"], "'fast'"),
        (["--flux-operator-idle-timeout", "-5"], "idleTimeout"),
        (["--flux-operator-config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_option_is_named_before_anything_runs(tmp_path: Path, arguments: list[str], words: str) -> None:
    text = 'rule a:\n    output: "a"\n    shell: "touch {output}"\n'
    assert_named_before_anything_runs(run_snakemake(tmp_path, text, *arguments, engine="embedded"), words)


def test_attaching_to_nothing_is_named_before_anything_runs(engine: str, snakemake: Snakemake) -> None:
    run = snakemake('rule a:\n    output: "a"\n    shell: "touch {output}"\n', "--flux-operator-provisioner", "attach")
    assert_named_before_anything_runs(run, ATTACH_REFUSED[engine])


def test_verbose_says_where_each_setting_came_from(snakemake: Snakemake, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {idleTimeout: 11}\njobDefaults: {duration: 60}\n"
    )
    run = snakemake(
        'rule a:\n    output: "a"\n    shell: "touch {output}"\n', "--verbose", "--flux-operator-config", "run.yaml",
        "--flux-operator-orphan-timeout", "77", FLUX_OPERATOR_IDLE_TIMEOUT="22",
    )  # fmt: skip
    assert run.returncode == 0, run.output
    assert "run.idleTimeout = 22.0 (environment FLUX_OPERATOR_IDLE_TIMEOUT)" in run.output
    assert "run.orphanTimeout = 77.0 (option)" in run.output
    assert "jobDefaults.duration = 60.0 (file run.yaml)" in run.output
    assert "jobDefaults.urgency = 16 (default)" in run.output
