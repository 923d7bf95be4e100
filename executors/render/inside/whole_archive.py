"""Whether the archive that is named is whole, to the empty block at its end: the exit code."""

import sys
import tarfile

with open(sys.argv[1], "rb") as file, tarfile.open(fileobj=file) as archive:
    if not archive.getmembers() or len(file.read(512)) != 512:
        sys.exit(1)
