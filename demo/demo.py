"""The main job, on this machine's own files, with the rights of whoever runs it.

A real tree of this machine goes in as a layer, an image and a container are built on it, files change, and the layer
comes out again byte for byte. The store is made in the user's home and left there to be looked at; the next run of the
demo makes it anew. Ends with status 1 if the digests do not agree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import layerhold

TREES = ("etc", "usr/bin", "usr/share/doc", "usr/share/zoneinfo", "usr/lib/python3")
MIB = 1 << 20
GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"
MARKS = {0: ("~", YELLOW), 1: ("+", GREEN), 2: ("-", RED)}


def main() -> int:
    """Run the demo; return the exit status."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "layerhold-demo"
    clear(home)
    home.mkdir(parents=True)
    with layerhold.open(graphroot=home / "store", runroot=home / "run", driver="vfs") as store:
        title(f"1. Files of this machine as a tar, with {os.environ.get('USER') or 'this user'} as their owner")
        tar, digest = pack(home)
        print(f"   {' '.join(f'/{tree}' for tree in present())}: {human(tar.stat().st_size)}\n   sha256:{digest}")

        title("2. The tar goes in as a layer")
        began = time.monotonic()
        with tar.open("rb") as stream:
            layer = store.layers.create(diff=stream, names=["demo-base"])
        print(f"   {layer.id[:12]}  in {time.monotonic() - began:.1f} s, digest {layer.record.diff_digest[:19]}…")

        title("3. An image and a container on it; files change")
        image = build_image(store, layer)
        container = store.containers.create(image=image, names=["demo"])
        with container.layer.mount() as root:
            change(root)
        show_tree(store)

        title("4. What the container changed")
        for entry in container.layer.changes():
            mark, colour = MARKS[entry.kind]
            print("   " + paint(f"{mark} {os.fsdecode(entry.path)}", colour))
        print(f"   {human(container.layer.diff_size())} of changed files")

        title("5. The layer comes out again")
        out = hashlib.sha256()
        began = time.monotonic()
        with layer.diff(compression=0) as stream:
            while block := stream.read(MIB):
                out.update(block)
        same = out.hexdigest() == digest
        print(f"   sha256:{out.hexdigest()}  in {time.monotonic() - began:.1f} s")
        verdict = ("the same bytes as went in", GREEN) if same else ("NOT the bytes that went in", RED)
        print("   " + paint(*verdict))
    tar.unlink()
    command = f"{Path(sys.executable).parent}/layerhold -g {home}/store -R {home}/run -s vfs"
    print(f"\nThe store is still there:\n   {command} layers --tree\n   {command} changes {container.layer.id[:12]}")
    return 0 if same else 1


def present() -> list[str]:
    """Name those of the trees that this machine has."""
    return [tree for tree in TREES if Path("/", tree).is_dir()]


def pack(home: Path) -> tuple[Path, str]:
    """Write the trees into one tar, and give its path and sha256. Files that the user may not read are left out."""
    tar = home / "machine.tar"
    owner = [f"--owner=user:{os.getuid()}", f"--group=group:{os.getgid()}"]
    options = ["--ignore-failed-read", "--warning=none", "--sort=name", *owner, "--mode=u+r,ug-s"]
    subprocess.run(["tar", "-C", "/", "-cf", str(tar), *options, *present()], check=False, stderr=subprocess.DEVNULL)
    with tar.open("rb") as file:
        return tar, hashlib.file_digest(file, "sha256").hexdigest()


def build_image(store: layerhold.Store, layer: layerhold.Layer) -> layerhold.Image:
    """Make the least image that Podman lists and runs: a configuration and a manifest, as OCI has them."""
    record = layer.record
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/usr/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [record.diff_digest]},
        }
    ).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": record.compressed_diff_digest,
                "size": record.compressed_size,
            }
        ],
    }
    return store.images.create(
        layer=layer,
        id=digest.removeprefix("sha256:"),
        names=["localhost/demo:1"],
        data={digest: config, "manifest": json.dumps(manifest).encode()},
    )


def change(root: Path) -> None:
    """Add, change and remove files, as somebody who works in the container would."""
    (root / "srv").mkdir(exist_ok=True)
    (root / "srv/hello.txt").write_text("hello from a layer\n")
    with (root / "etc/passwd").open("a") as file:
        file.write("demo:x:12345:12345::/srv:/bin/sh\n")
    (root / "etc/fstab").unlink(missing_ok=True)
    shutil.rmtree(root / "usr/share/zoneinfo/Europe", ignore_errors=True)


def show_tree(store: layerhold.Store) -> None:
    """Print the layers as a tree, with their sizes and what stands on them."""
    tops = {image.layer_id: image.names[0] for image in store.images}
    owners = {container.layer_id: container.names[0] for container in store.containers}
    layers = list(store.layers)

    def below(parent: str, indent: str) -> None:
        for layer in [layer for layer in layers if layer.parent_id == parent]:
            uses = [f"image {tops[layer.id]}"] if layer.id in tops else []
            uses += [f"container {owners[layer.id]}"] if layer.id in owners else []
            size = layer.record.diff_size or layer.diff_size()
            print(f"   {indent}{paint(layer.id[:12], BOLD)}  {human(size):>9}  {paint(', '.join(uses), DIM)}")
            below(layer.id, indent + "└─ ")

    below("", "")


def clear(home: Path) -> None:
    """Remove the store of the last run, directories that are not writable included."""
    for directory, _names, _files in os.walk(home):
        Path(directory).chmod(0o700)
    shutil.rmtree(home, ignore_errors=True)


def title(text: str) -> None:
    """Print the headline of a step."""
    print("\n" + paint(text, BOLD))


def paint(text: str, colour: str) -> str:
    """Colour the text on a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() else text


def human(size: int) -> str:
    """Give a size in bytes as people read it."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.1f} KiB"


if __name__ == "__main__":
    sys.exit(main())
