"""Binaries of other builds than the one that is tested: of a release, and of one that is newer than the checkout.

They are built with the profile of $POSTRIDER_BIN, into $POSTRIDER_BUILDS (default: `builds` in its target folder), and kept there.
"""

import os
import re
import shutil
import subprocess

from cluster import Failure, binary

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
RELEASES = os.path.join(ROOT, "tests", "upgrade", "releases")


def releases():
    """(version, commit) of each release, oldest first."""
    found = []
    with open(RELEASES) as file:
        for line in file:
            words = line.split("#")[0].split()
            if words:
                version, commit = words
                found.append((version, commit))
    return found


def folder():
    return os.environ.get("POSTRIDER_BUILDS") or os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(binary()))), "builds")


def of_commit(commit):
    """The binary of a commit."""
    kept = os.path.join(folder(), "kept", commit)
    if not os.path.exists(kept):
        source = fresh(os.path.join(folder(), "source"))
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
        build(source, kept)
    return kept


def newer(patch):
    """The binary of the checkout as it stands, changed by `patch(source)`."""
    source = fresh(os.path.join(folder(), "source"))
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    archive = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=ROOT, input=names, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    patch(source)
    kept = os.path.join(folder(), "kept", "newer")
    build(source, kept)
    return kept


def fresh(directory):
    """Empty, and always at the same path: what was built of it before is not built again."""
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    return directory


def build(source, kept):
    profile = os.path.basename(os.path.dirname(os.path.abspath(binary())))
    words = ["cargo", "build", "--locked", "--bin", "postrider", *(["--release"] if profile == "release" else [])]
    done = subprocess.run(words, cwd=source, env={**os.environ, "CARGO_TARGET_DIR": folder()}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failure(f"the other build fails: {done.stdout[-2000:]}")
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    shutil.copy2(os.path.join(folder(), profile, "postrider"), kept)


def edit(source, path, *changes):
    """Replaces the first place of each pattern; one that is not there is a patch that has grown old."""
    path = os.path.join(source, path)
    with open(path) as file:
        text = file.read()
    for pattern, into in changes:
        text, count = re.subn(pattern, into, text, count=1)
        if not count:
            raise Failure(f"the patch does not fit {path}: there is no {pattern}")
    with open(path, "w") as file:
        file.write(text)
