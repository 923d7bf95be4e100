"""Whether the archive that is named is whole, to the empty block at its end: the exit code."""

import sys
import tarfile


def main(path: str) -> bool:
    with open(path, "rb") as file, tarfile.open(fileobj=file) as archive:
        return bool(archive.getmembers()) and len(file.read(512)) == 512


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
