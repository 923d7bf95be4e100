"""CPU seconds and peak memory of a job, which Flux does not report: a *meter* runs the job as its child.

It appends them to a file that the agent reads. It is plain argv before the job's command, and Perl because that starts
in 3 ms where Python takes 20; without Perl, no usage.
"""

from __future__ import annotations

import os
import shutil
from typing import Dict, List, Optional

#: getrusage(2) by number, since Perl has no name for it in its core. Other machines go without usage.
_GETRUSAGE = {"x86_64": "98", "aarch64": "165", "riscv64": "165", "ppc64le": "77", "s390x": "77"}

# The handlers are there to outlive a signal that is sent to the whole process group, and they end with exec, so the
# job itself starts with the default ones. ru_maxrss is in KiB and is that of the largest process, not of their sum.
_METER = r"""
my ($file, $number) = splice(@ARGV, 0, 2);
$SIG{$_} = sub {} for qw(HUP INT QUIT TERM ALRM USR1 USR2);
$ENV{FXO_USAGE} = $file;
my $pid = fork;
if (!$pid) {
  no warnings;
  open(STDIN, "<", "/dev/null");
  exec {$ARGV[0]} @ARGV;
  print STDERR "$ARGV[0]: $!\n";
  exit($!{ENOENT} ? 127 : 126);
}
1 while waitpid($pid, 0) == -1 && $!{EINTR};
my $status = $?;
my $usage = "\0" x 256;
if (defined $pid && syscall($number + 0, -1, $usage) == 0 && open(my $out, ">>", $file)) {
  my @u = unpack("q5", $usage);
  syswrite($out, sprintf("%s %.6f %d\n", $ENV{FLUX_JOB_ID} || "-", $u[0] + $u[2] + ($u[1] + $u[3]) / 1e6, $u[4]));
  close $out;
}
if ($status & 127) { $SIG{$_} = "DEFAULT" for keys %SIG; kill $status & 127, $$; }
exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
"""


def is_available() -> bool:
    return shutil.which("perl") is not None and os.uname().machine in _GETRUSAGE


def with_meter(command: List[str], usage_file: str) -> List[str]:
    return [
        shutil.which("perl") or "perl",
        "-MErrno",
        "-e",
        _METER,
        usage_file,
        _GETRUSAGE[os.uname().machine],
    ] + command


class UsageReader:
    """Reads the lines that meters append; ``take(job id)`` returns the sum over a job's tasks, once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._found: Dict[str, Dict[str, float]] = {}
        self._lines: Dict[str, int] = {}

    def take(self, job_id: str, tasks: int) -> Optional[Dict[str, float]]:
        """{"cpu": seconds, "max_rss": bytes} or None. Called when the job's finish event is here, so its lines are.

        None too unless every task has written one: tasks on other nodes may have no way to this file.
        """
        if self._lines.get(job_id, 0) < tasks:
            self._read()
        found = self._found.pop(job_id, None)
        return found if self._lines.pop(job_id, 0) >= tasks else None

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as lines:
                lines.seek(self._offset)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    # Flux writes its ids with a florin sign where the locale has one; keys are the plain form.
                    self._add(line.decode("utf-8", "replace").replace("\u0192", "f").split())
        except FileNotFoundError:
            return

    def _add(self, words: List[str]) -> None:
        if len(words) not in (3, 4):
            return
        usage = self._found.setdefault(words[0], {"cpu": 0.0, "max_rss": 0})
        if len(words) == 3:  # else it is more of the same task (wire.USAGE_VARIABLE)
            self._lines[words[0]] = self._lines.get(words[0], 0) + 1
        usage["cpu"] += float(words[1])
        usage["max_rss"] = max(usage["max_rss"], int(words[2]) * 1024)
