#!/usr/bin/env python3
"""Goal    Two Debian roots in the build folder: `base` (debootstrap's smallest, as an image begins) and `booting` (systemd, and what lockstep depends on).
Method  debootstrap from where apt on this machine gets Debian; the package is installed once for its dependencies, and purged. Made anew when that changes."""

import hashlib
import os
import shutil
import tempfile

from machine import REPOSITORY, ROOTS, build_package, copy_of, run, run_in

QUIET = ["env", "DEBIAN_FRONTEND=noninteractive"]


def debian_mirror():
    """(address, code name) of this machine's own Debian, from apt's configuration."""
    code_name = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)["VERSION_CODENAME"]
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", f"Codename: {code_name}").split()
    if not targets:
        raise SystemExit(f"make_roots.py: apt knows no source for Debian {code_name}: run apt-get update")
    return targets[0], code_name


def current(name, key):
    stamp = ROOTS / f"{name}.key"
    return stamp.exists() and stamp.read_text() == key


def keep(root, name, key):
    """Puts a finished root in its place; the key comes last, so that only a whole one counts."""
    (ROOTS / f"{name}.key").unlink(missing_ok=True)
    shutil.rmtree(ROOTS / name, ignore_errors=True)
    os.rename(root, ROOTS / name)
    (ROOTS / f"{name}.key").write_text(key)


def make_base():
    mirror, code_name = debian_mirror()
    key = f"{mirror} {code_name}"
    if not current("base", key):
        folder = tempfile.mkdtemp(dir=ROOTS, prefix="copy.")
        run("debootstrap", "--variant=minbase", code_name, folder, mirror, limit=900)
        os.chmod(folder, 0o755)
        keep(folder, "base", key)
    return key


def make_booting(base_key):
    with tempfile.TemporaryDirectory() as folder:
        package = build_package(folder)
        depends = run("dpkg-deb", "--field", package, "Depends")
        key = hashlib.sha256((base_key + depends).encode()).hexdigest()
        if current("booting", key):
            return
        root = copy_of(ROOTS / "base")
        shutil.copy(package, root / "lockstep.deb")
        run_in(root, *QUIET, "apt-get", "update")
        run_in(root, *QUIET, "apt-get", "install", "--yes", "--no-install-recommends", "systemd-sysv", "dbus", "/lockstep.deb")
        run_in(root, *QUIET, "dpkg", "--purge", "lockstep")
        run_in(root, "apt-get", "clean")
        (root / "lockstep.deb").unlink()
        keep(root, "booting", key)


def main():
    ROOTS.mkdir(exist_ok=True)
    for left_over in ROOTS.glob("copy.*"):
        shutil.rmtree(left_over, ignore_errors=True)
    make_booting(make_base())
    print(f"roots of {REPOSITORY.name} are ready")


if __name__ == "__main__":
    main()
