"""The usual way of the command ``flux`` in Perl, which starts in a fifth of the time that Python takes. Pure.

It asks the session and prints the answer, as `client` does; for all else, and without an answer, it becomes that.
It ignores a Ctrl-C, which reaches Nextflow and all that it has started: submissions and cancellations are whole.
Perl is not told of the user's locale and modules: a warning among the output would be taken for the id of a job.
"""

from __future__ import annotations

import shlex

from executors.flux_command import client
from executors.flux_command.environment import TASK

TEXT = r"""
my ($dir, $inside, $submit, $jobs, $other) = splice @ARGV, 0, 5;
my ($first, $second) = (@ARGV, "", "");
my $ours = $first =~ /^(?:submit|jobs|cancel)\z/ || $first eq "job" && $second eq "cancel";
my $cwd = readlink "/proc/self/cwd";
if ($ours && defined $cwd && !exists $ENV{$inside}) {
  my $limit = $first eq "submit" ? $submit : $first eq "jobs" ? $jobs : $other;
  $SIG{$_} = "IGNORE" for qw(PIPE INT HUP);
  $SIG{ALRM} = sub {
    syswrite STDOUT, "flux: the session of this run has not answered within $limit s: Socket timed out\n";
    exit 1;
  };
  alarm $limit;
  my $socket;
  if (socket($socket, 1, 1, 0) && connect($socket, pack("Sa108", 1, "$dir/sock"))) {
    put($socket, join "\0", getppid, $cwd, @ARGV);
    shutdown $socket, 1;
    my $reply = "";
    while (sysread $socket, $reply, 65536, length $reply) {}
    alarm 0;
    if ($reply =~ s/^(\d)//) {
      my $code = $1;
      put(\*STDOUT, $reply);
      exit $code;
    }
  }
  alarm 0;
  $SIG{$_} = "DEFAULT" for qw(PIPE INT HUP);
}
exec "$dir/lib/flux", @ARGV;
syswrite STDOUT, "flux: $dir/lib/flux: $!\n";
exit 127;

sub put {
  my ($to, $text) = @_;
  my $at = 0;
  while ($at < length $text) {
    my $count = syswrite $to, $text, length($text) - $at, $at;
    last unless $count;
    $at += $count;
  }
}
"""


def command(perl: str, script: str, directory: str) -> str:
    """The program, a text for sh. ``script`` is the path of `TEXT`, ``directory`` the session's."""
    limits = (client.LIMIT["submit"], client.LIMIT["jobs"], client.OTHER_LIMIT)
    words = [perl, "-f", script, directory, TASK, *(f"{limit:g}" for limit in limits)]
    return f'#!/bin/sh\nPERL_BADLANG=0 PERL5OPT= PERL5DB= exec {shlex.join(words)} "$@"\n'
