"""What an agent's exit code tells its supervisor; 0 is a good end."""

#: The agent cannot work here (see its error file); starting it again would not help.
REFUSED = 3
#: A program whose command line is wrong.
USAGE = 2
#: An agent that was told to end and could not end all jobs before.
JOBS_LEFT = 4
