"""``python -m executors.flux_command serve``: a session's process; ``end DIRECTORY``: ends what a dead one has left."""

import sys

from executors.flux_command.server import end_left, serve

if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["serve"] else end_left(sys.argv[2]))
