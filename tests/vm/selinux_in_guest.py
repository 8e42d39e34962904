"""What test_selinux.py does in its guest: turns SELinux on, mounts by both programs, and writes down what it sees.

Arguments: the folder of the job, with the compiled `policy` in it, where `result.json` goes; Go's containers-storage.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import layerhold
from layerhold import labels
from layerhold.containers import Container
from layerhold.errors import StorageError
from layerhold.linux import mounts, selinux

STORE = Path("/run/store")  # a tmpfs: overlay cannot stand on the guest's root, which is one itself
LABEL = "system_u:object_r:container_file_t:s0:c5,c77"
UNKNOWN = "system_u:object_r:unknown_t:s0"


def main(job: Path, go: str) -> None:
    before = selinux.enabled()
    turn_on(job)
    found = {"before": before, "after": selinux.enabled(), **chosen(), **mounted(go), **relabelled()}
    found["layers"] = {driver: shared_layers(driver, go) for driver in ("vfs", "btrfs")}
    found["levels"] = levels(go)
    (job / "result.json").write_text(json.dumps(found))


def turn_on(job: Path) -> None:
    """Load the policy, and say which labels containers have in it."""
    contexts = Path("/etc/selinux/small/contexts")
    contexts.mkdir(parents=True)
    (contexts.parent.parent / "config").write_text("SELINUX=permissive\nSELINUXTYPE=small\n")
    (contexts / "lxc_contexts").write_text((job / "lxc_contexts").read_text())
    mounts.mount("selinuxfs", "/sys/fs/selinux", "selinuxfs")
    with open("/sys/fs/selinux/load", "wb", buffering=0) as file:
        file.write((job / "policy").read_bytes())
    selinux.enabled.cache_clear()
    selinux._selinuxfs.cache_clear()


def chosen() -> dict[str, object]:
    """Labels for three containers, and what is said of a type that the policy does not know."""
    first = labels.container_labels([], used=[])
    second = labels.container_labels(["type:spc_t"], used=[first.process])
    third = labels.container_labels(["disable"], used=[first.process, second.process])
    return {
        "chosen": [(found.process, found.mount) for found in (first, second, third)],
        "unknown type": refusal(lambda: labels.container_labels(["type:unknown_t"], used=[])),
    }


def mounted(go: str) -> dict[str, object]:
    """What mounts look like that have labels: ours, Go's, and those of containers of both."""
    found: dict[str, object] = {}
    with opened(STORE, "overlay") as store:
        layer = store.layers.create(diff=one_file(), id="base")
        found["without"] = seen(store, "base")
        found["ours"] = seen(store, "base", LABEL)
        found["go"] = seen_in(Path(ran(go, "mount", "--label", LABEL, "base")))
        ran(go, "unmount", "base")
        store.layers.create(layer, id="labelled", label=LABEL)
        found["recorded"] = seen(store, "labelled")
        found["unknown label"] = refusal(lambda: store.mount("base", label=UNKNOWN))

        image = store.images.create(layer=layer)
        for id in ("first", "second"):
            ran(go, "create-container", "--id", id, image.id)
        taken = [recorded(store.containers[id]) for id in ("first", "second")]
        store.containers.create(image=image, id="ours")
        found["containers"] = [*taken, recorded(store.containers["ours"])]
        found["their mounts"] = [seen(store, id)["file"] for id in ("first", "second", "ours")]
    return found


def ran(go: str, *words: str, root: Path = STORE, driver: str = "overlay") -> str:
    """What Go's program prints."""
    where = ["--graph", f"{root}/root", "--run", f"{root}/run", "--storage-driver", driver]
    return subprocess.run([go, *where, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def opened(root: Path, driver: str) -> layerhold.Store:
    return layerhold.Store.open(graphroot=root / "root", runroot=root / "run", driver=driver)


def refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except StorageError as error:
        return str(error)
    return "nothing"


def one_file() -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    packed.seek(0)
    return packed


def recorded(container: Container) -> tuple[str, str]:
    found = labels.flag_labels(container.record.flags)
    return found.process, found.mount


def seen(store: layerhold.Store, ref: str, label: str = "") -> dict[str, str]:
    with store.mount(ref, label=label) as path:
        return seen_in(path)


def seen_in(path: Path) -> dict[str, str]:
    """The labels of a file in a mount and of a new one, and what the kernel says of the mount."""
    (path / "new").touch()
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(path))
    context = re.search(r'context="([^"]*)"', line)
    return {
        "file": selinux.file_label(str(path / "file")),
        "new": selinux.file_label(str(path / "new")),
        "context": context[1] if context else "",
    }


def relabelled() -> dict[str, object]:
    """The labels in a tree, for one container, for all, and of what a link in it leads to; what is refused."""
    top = Path("/run/tree")
    (top / "inner").mkdir(parents=True)
    (top / "inner/file").touch()
    (top / "link").symlink_to("/run/outside")
    Path("/run/outside").touch()
    found: dict[str, object] = {}
    with opened(STORE, "overlay") as store:
        container = store.containers["ours"]
        for name, shared in (("private", False), ("shared", True), ("private again", False)):
            container.relabel(top, shared=shared)
            inside = {selinux.file_label(str(path)) for path in (top, *top.rglob("*"))}
            found[name] = [recorded(container)[1], sorted(inside)]
        found["of the machine"] = refusal(lambda: container.relabel("/etc"))
    return {**found, "outside": selinux.file_label("/run/outside")}


def shared_layers(driver: str, go: str) -> list[list[str]]:
    """The labels of layers that are directories: of the top, and of a file in it; ours, and that of Go's program."""
    root = Path("/run", driver)
    root.mkdir()
    if driver == "btrfs":
        with open("/run/image", "wb") as file:
            file.truncate(200 << 20)
        subprocess.run(["mkfs.btrfs", "-q", "/run/image"], check=True)
        subprocess.run(["mount", "-o", "loop", "/run/image", str(root)], check=True)
    Path("/run/one-file.tar").write_bytes(one_file().getvalue())
    ran(go, "import-layer", "--id", "go", "--file", "/run/one-file.tar", root=root, driver=driver)
    with opened(root, driver) as store:
        store.layers.create(diff=one_file(), id="ours")
        tops = [store.layers[id].mount().path for id in ("ours", "go")]
        return [[selinux.file_label(str(path)) for path in (top, top / "file")] for top in tops]


# -- levels: of four categories there are six pairs


def levels(go: str) -> dict[str, object]:
    """Levels of containers that two processes make at once; what comes when there are no more; what is free again."""
    labels._CATEGORIES = 4
    root = Path("/run/levels")
    with opened(root, "vfs") as store:
        store.containers.create(id="first")
    two = [subprocess.Popen([sys.executable, "-m", __spec__.name, "make", str(root)]) for _ in range(2)]
    ended = [process.wait() for process in two]
    found: dict[str, object] = {"ended": ended}
    with opened(root, "vfs") as store, opened(root, "vfs") as other:
        other.containers.create(id="sixth")
        found["levels"] = sorted(level_of(container) for container in store.containers)
        before = sorted(path.name for path in root.rglob("*"))
        found["one more"] = refusal(lambda: store.containers.create(id="seventh"))
        found["unchanged"] = before == sorted(path.name for path in root.rglob("*"))
        freed = level_of(store.containers["first"])
        ran(go, "delete-container", "first", root=root, driver="vfs")
        found["freed"] = level_of(other.containers.create(id="again")) == freed
    return found


def level_of(container: Container) -> str:
    process, mount = recorded(container)
    assert process.split(":", 3)[3] == mount.split(":", 3)[3]
    return process.split(":", 3)[3]


def make(root: Path) -> None:
    """Make two containers, each by a store that is opened for it."""
    labels._CATEGORIES = 4
    for _ in range(2):
        with opened(root, "vfs") as store:
            store.containers.create()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), sys.argv[2])
