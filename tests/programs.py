"""The real Go programs, fetched from Debian's suites into an ignored folder.

What is fetched, under `.work/programs/` of the checkout (or `$LAYERHOLD_WORK/programs/`):

- `storage-bullseye`, `storage-bookworm`, `storage-sid`: containers-storage 1.24, 1.43 and 1.64 with the libraries that
  they need, taken apart with `dpkg-deb -x` and pointed at those libraries by `patchelf`. Nothing is installed, root is
  not needed.
- `root-sid`, and `root-bookworm` where this machine's own podman is not 4.3: whole roots with podman, skopeo and
  buildah, made by `mmdebstrap`, entered in a mount namespace of their own. These need root.

The mirror is whatever apt uses on this machine, asked at run time. Each folder is made aside, under a lock file, and
renamed into place with a stamp, so two test runs at once, or one that was killed, do no harm. `python -m
tests.programs` fetches all of it and prints what there is.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WORK = Path(os.environ.get("LAYERHOLD_WORK") or Path(__file__).resolve().parent.parent / ".work")
PROGRAMS = WORK / "programs"

SUITES = {"1.24": "bullseye", "1.43": "bookworm", "1.64": "sid"}
STORAGE_VERSIONS = tuple(SUITES)
NEWEST = "1.64"

# sid's program wants sid's libc; the older ones run on the machine's own.
_PACKAGES = {
    "bullseye": ("containers-storage", "libdevmapper1.02.1"),
    "bookworm": ("containers-storage", "libdevmapper1.02.1"),
    "sid": ("containers-storage", "libc6"),
}
_ROOT_PACKAGES = "containers-storage,podman,skopeo,buildah,crun,fuse-overlayfs,busybox-static,netavark,ca-certificates"
_RECIPE = "4"

# Enters the root $1 with the store's folder $2 at its own path. pivot_root, since crun wants / to be a mount point; the
# unified cgroup tree goes, since the Go programs refuse a hybrid one.
_ENTER = """
R=$1; S=$2; shift 2
mount --make-rprivate /
umount /sys/fs/cgroup/unified 2>/dev/null || true
mount --bind "$R" "$R"
for d in proc sys dev; do mount --rbind /$d "$R/$d"; done
mkdir -p "$R$S" && mount --rbind "$S" "$R$S" && mount -t tmpfs tmpfs "$R/run"
cd "$R" && mkdir -p mnt && pivot_root . mnt && cd / && umount -l /mnt && exec "$@"
"""
_HERE = 'umount /sys/fs/cgroup/unified 2>/dev/null || true; mount --make-rprivate /; shift 2; exec "$@"'
# What lets `podman run` start where root has no CAP_SYS_RESOURCE.
RUN_FLAGS = ("--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none")


class Unavailable(Exception):
    """A program cannot be had here; the text says why and what would help."""


# -- where packages come from


@functools.cache
def mirror() -> str:
    """The address of the Debian mirror that this machine's apt uses."""
    if not shutil.which("apt-get"):
        raise Unavailable("the Go programs come from Debian: this machine has no apt-get")
    answer = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)")
    suites = {"bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"}
    for line in answer.splitlines():
        address, release, component, kind = (line.split() + [""] * 4)[:4]
        if release in suites and component == "main" and kind == "Packages":
            return address
    raise Unavailable("the Go programs come from Debian: apt on this machine knows no Debian mirror")


def apt_line(suite: str, components: str = "main") -> str:
    """A line of an apt list for `suite`; trusted, since the keys of other suites may not be installed."""
    return f"deb [trusted=yes] {mirror()} {suite} {components}"


def download(suite: str, packages: Sequence[str], into: Path, *, behind: str = "", components: str = "main") -> None:
    """Unpack `packages` of `suite` into a folder, with an apt list of our own: nothing of the machine's apt changes.

    Also the package that an empty one, `behind`, stands for: the first that it depends on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (state / name).mkdir(parents=True)
        (state / "sources.list").write_text(apt_line(suite, components) + "\n")
        (state / "status").touch()
        options = [
            f"Dir::Etc::sourcelist={state}/sources.list",
            "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::lists={state}/lists",
            f"Dir::State::status={state}/status",
            f"Dir::Cache={state}/cache",
            "Acquire::Check-Valid-Until=false",
            "Acquire::Retries=3",
            "APT::Sandbox::User=",
            "Acquire::Languages=none",
        ]
        apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
        run(*apt, "update")
        if behind:
            answer = run("apt-cache", *apt[2:], "depends", "--no-recommends", behind)
            packages = (*packages, answer.partition("Depends: ")[2].split()[0])
        run(*apt, "download", *packages, cwd=state / "debs")
        for deb in sorted((state / "debs").glob("*.deb")):
            run("dpkg-deb", "-x", str(deb), str(into))


@functools.cache
def patchelf() -> str:
    """The patchelf of this machine, or one of Debian's for the machine's own release."""
    if found := shutil.which("patchelf"):
        return found
    return str(
        made(PROGRAMS / "patchelf", lambda place, _: download("bookworm", ("patchelf",), place)) / "usr/bin/patchelf"
    )


def igzip() -> str:
    """The fastest gunzip: this machine's igzip, or Debian's, unpacked and bound to the library that it comes with."""
    if found := shutil.which("igzip"):
        return found
    return str(made(PROGRAMS / "igzip", _make_igzip) / "usr/bin/igzip")


def _make_igzip(place: Path, final: Path) -> None:
    download("bookworm", ("isal", "libisal2"), place)
    folder = next(place.rglob("libisal.so.2")).parent.relative_to(place)
    run(patchelf(), "--set-rpath", str(final / folder), str(place / "usr/bin/igzip"))


# -- made once


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two test runs do not make the same thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_made(final: Path) -> bool:
    try:
        return (final / ".made").read_text() == f"{_RECIPE} {final}"
    except OSError:
        return False


def made(final: Path, make: Callable[[Path, Path], None]) -> Path:
    """The folder `final`, made by `make(place, final)` if it is not there yet, whole or not at all.

    The stamp holds the folder's own path: the programs in it are bound to it, so a moved checkout fetches anew.
    """
    if _is_made(final):
        return final
    try:
        with locked(final.with_name(f"{final.name}.lock")):
            if _is_made(final):
                return final
            for old in (final, *final.parent.glob(f"{final.name}.tmp-*")):
                shutil.rmtree(old, ignore_errors=True)
            place = Path(tempfile.mkdtemp(prefix=f"{final.name}.tmp-", dir=final.parent))
            try:
                place.chmod(0o755)
                make(place, final)
                (place / ".made").write_text(f"{_RECIPE} {final}")
                place.rename(final)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            return final
    except OSError as error:
        raise Unavailable(f"cannot make {final}: {error}") from error


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command of the fetching itself; its failure is a reason to skip."""
    try:
        done = subprocess.run(
            command, cwd=cwd, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900
        )
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if done.returncode:
        tail = " / ".join(done.stderr.strip().splitlines()[-2:])
        raise Unavailable(f"{command[0]} failed: {tail}")
    return done.stdout


# -- containers-storage

# What our command is called by, so that it takes the name, and so the ways, of Go's program.
OURS_AS_GO = "import sys; sys.argv[0] = 'containers-storage'; from layerhold.cli.main import run; sys.exit(run())"


@functools.cache
def storage(version: str = NEWEST) -> str:
    """The path of a Go `containers-storage` of version "1.24", "1.43" or "1.64", or `Unavailable`."""
    suite = SUITES[".".join(version.split(".")[:2])]
    return str(
        made(PROGRAMS / f"storage-{suite}", functools.partial(_make_storage, suite)) / "usr/bin/containers-storage"
    )


def _make_storage(suite: str, place: Path, final: Path) -> None:
    download(suite, _PACKAGES[suite], place)
    program = place / "usr/bin/containers-storage"
    folders = {path.parent.relative_to(place) for path in place.rglob("*.so*")}
    flags = ["--set-rpath", ":".join(str(final / folder) for folder in sorted(folders))]
    if loader := next(iter(sorted(place.glob("usr/lib/*/ld-linux-*.so.*"))), None):
        flags += ["--set-interpreter", str(final / loader.relative_to(place))]
    run(patchelf(), *flags, str(program))


# -- whole roots


@functools.cache
def root(suite: str) -> Path:
    """A root of `suite` with podman, skopeo and buildah in it."""
    _need_root()
    if not shutil.which("mmdebstrap"):
        raise Unavailable("mmdebstrap is not installed (Debian: apt-get install mmdebstrap)")
    return made(PROGRAMS / f"root-{suite}", functools.partial(_make_root, suite))


def _make_root(suite: str, place: Path, final: Path) -> None:
    run(
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        f"--include={_ROOT_PACKAGES}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=Acquire::Retries "3"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        suite,
        str(place),
        apt_line(suite),
    )


def _need_root() -> None:
    if os.geteuid():
        raise Unavailable("podman in a root of its own needs root")


@functools.cache
def _enter(suite: str) -> tuple[str, ...]:
    """The words before a program of `suite` and its arguments, when followed by the store's folder."""
    _need_root()
    script, place = (_ENTER, str(root(suite))) if not _is_native(suite) else (_HERE, "")
    return ("unshare", "-m", "bash", "-ec", script, "-", place)


def _is_native(suite: str) -> bool:
    """Whether this machine's own podman is the one of `suite`."""
    if suite != "bookworm" or not all(shutil.which(name) for name in ("podman", "skopeo", "buildah")):
        return False
    done = subprocess.run(["podman", "--version"], check=False, capture_output=True, text=True)
    return " 4.3" in done.stdout


def command(suite: str, folder: str | Path, *words: str) -> list[str]:
    """The words that run a program of `suite` ("bookworm", "sid"), which sees `folder` at its own path."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return [*_enter(suite), str(folder), "env", path, *words]


def podman_command(suite: str, store: str | Path, *args: str, driver: str = "overlay") -> list[str]:
    """The words that run podman on the store whose graph root is `store`/root and whose run root is `store`/run."""
    where = ("--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", driver)
    return command(suite, store, "podman", *where, "--cgroup-manager", "cgroupfs", *args)


def podman43(store: str | Path, *args: str, driver: str = "overlay") -> subprocess.CompletedProcess[str]:
    """Run podman 4.3 on `store`/root and `store`/run; `RUN_FLAGS` belong behind `run`."""
    return _answer(podman_command("bookworm", store, *args, driver=driver))


def podman58(store: str | Path, *args: str, driver: str = "overlay") -> subprocess.CompletedProcess[str]:
    """Run podman 5.8 on `store`/root and `store`/run; files that it is to read must be in `store`, too."""
    return _answer(podman_command("sid", store, *args, driver=driver))


def skopeo(store: str | Path, *args: str, suite: str = "sid") -> subprocess.CompletedProcess[str]:
    """Run skopeo, which sees the folder `store`; a store is `containers-storage:[driver@root+run]name` to it."""
    return _answer(command(suite, store, "skopeo", "--insecure-policy", *args))


def buildah(
    store: str | Path, *args: str, suite: str = "sid", driver: str = "overlay"
) -> subprocess.CompletedProcess[str]:
    """Run buildah on `store`/root and `store`/run."""
    where = ("--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", driver)
    return _answer(command(suite, store, "buildah", *where, *args))


def _answer(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, check=False, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=180
    )


# -- the rest


def bare_path() -> str:
    """A PATH folder with links to the usual programs but no pigz, zstd or other helper that a program might call."""
    place = WORK / "bare-path"
    with locked(WORK / "bare-path.lock"):
        if not place.is_dir():
            aside = Path(tempfile.mkdtemp(prefix="bare-path.tmp-", dir=WORK))
            aside.chmod(0o755)
            for name in (
                "sh",
                "bash",
                "env",
                "cat",
                "ls",
                "mkdir",
                "rm",
                "cp",
                "tar",
                "mount",
                "umount",
                "unshare",
                "fusermount3",
            ):
                if found := shutil.which(name):
                    (aside / name).symlink_to(found)
            aside.rename(place)
    return str(place)


def available() -> dict[str, str]:
    """What can be had, after trying: name -> path or version, or "unavailable: " and the reason."""
    wanted: dict[str, Callable[[], str]] = {
        f"containers-storage {version}": functools.partial(storage, version) for version in STORAGE_VERSIONS
    }
    wanted["podman 4.3"] = functools.partial(_podman_place, "bookworm")
    wanted["podman 5.8"] = functools.partial(_podman_place, "sid")
    found = {}
    for name, get in wanted.items():
        try:
            found[name] = get()
        except Unavailable as reason:
            found[name] = f"unavailable: {reason}"
    return found


def _podman_place(suite: str) -> str:
    _need_root()
    done = _answer(command(suite, tempfile.gettempdir(), "podman", "--version"))
    if done.returncode:
        raise Unavailable(f"podman of {suite} does not start: {done.stderr.strip()}")
    return f"{done.stdout.strip()} ({'/usr/bin' if _is_native(suite) else root(suite)})"


def main() -> int:
    """Fetch everything and print what there is; 1 if something could not be had."""
    found = available()
    for name, what in found.items():
        print(f"{name:28} {what}", flush=True)
    return any(what.startswith("unavailable") for what in found.values())


if __name__ == "__main__":
    sys.exit(main())
