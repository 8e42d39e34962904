"""What help and the manual say of a command beyond its one line in the table, by the command's first name.

A blank line parts paragraphs; where the lines in them end does not matter. What stands in backquotes is bold in the
manual. In a module of its own, which only help and the manual load.
"""

from __future__ import annotations

_NAMED = "LAYER, IMAGE and CONTAINER are an ID, the beginning of one that no other has, or a name."

PROGRAM = f"""\
Layers, images and containers on disk: the store that Podman, Buildah, Skopeo and CRI-O use, with
the same directories, files and locks, while they run. Root is not needed: for an ordinary user
the store is in the home directory.

The commands and flags are those of `containers-storage`, and so is what they print. The flags
below may stand before a command and behind it: before it they turn the configuration file off,
behind it they change single settings. A value follows as `--flag=value` or `--flag value`.

{_NAMED}
"""

_MAKES_LAYER = """\
PARENT is the layer that it stands on; without one it is a base layer. The ID and the names are
printed, the names on lines of their own behind a tab.
"""
_ANY_KIND = "THING may be a layer, an image or a container; where one word means several, the layer comes first."
_AGAINST = "The comparison is with the layer's parent, or with layer OTHER."
_REPORT = "What cannot be removed is reported, and the rest is removed all the same; the status is then 1."
_DATA = "Big data are named blobs beside a record: an image's manifest and configuration, for example."
_MOUNTS = """\
Mounts are counted, so that several users of a layer do not disturb each other: each `mount` needs
an `unmount` of its own, and the last of them unmounts.
"""
_OWNERS = """\
Printed are users and groups that own a directory above the mount point and are not in its ID maps.
With maps, it has to be mounted; without maps there are none.
"""

DESCRIPTIONS = {
    "create-layer": _MAKES_LAYER,
    "import-layer": f"""\
The stream is a tar, plain or compressed with gzip, zstd, xz or bzip2. Its headers are kept, so that
`diff` gives back the same bytes. If it is damaged, or has an entry that would leave the layer,
nothing of it stays.

{_MAKES_LAYER}""",
    "create-image": """\
Big data (`set-image-data`) make it one that Podman runs: a manifest as `manifest`, and the
configuration under its digest, whose hex is the image's ID.
""",
    "create-container": "The container gets a layer of its own over the image's top layer, to write to.",
    "layers": """\
Below each ID are the layer's names and the images and containers that stand on it. `--tree` draws
layers below their parents, and says where they are mounted.
""",
    "layer": "The status is 1 if one of them is not there; the others are shown all the same.",
    "image": """\
The size is that of all layers, uncompressed, and of the big data. The status is 1 if one of them is
not there; the others are shown all the same.
""",
    "container": """\
The size is that of what its layer changes, of the big data and of the two directories. The status
is 1 if one of them is not there; the others are shown all the same.
""",
    "exists": f"""\
{_ANY_KIND}
The status is 0 if all of them exist, and are of the kind that a flag asks for. What is printed, as
text or as JSON, tells of existence alone.
""",
    "get-names": _ANY_KIND,
    "set-names": f"A name that another item of the same kind has is taken from it.\n\n{_ANY_KIND}",
    "add-names": f"A name that another item of the same kind has is taken from it.\n\n{_ANY_KIND}",
    "remove-names": f"A name that it does not have is no error.\n\n{_ANY_KIND}",
    "metadata": f"{_ANY_KIND}\nThe status is 1 if one of them is not there.",
    "set-metadata": _ANY_KIND,
    "delete": f"""\
THING may be a container, an image (its layers stay) or a layer. What something else needs is not
removed. {_REPORT}
""",
    "delete-layer": f"A layer stays while a layer, an image or a container stands on it.\n{_REPORT}",
    "delete-image": f"""\
An image stays while a container is made from it. Layers go with it unless another layer, image or
container needs them; which do is printed on standard error. {_REPORT}
""",
    "delete-container": _REPORT,
    "mount": f"""\
Where each is mounted is printed.

{_MOUNTS}
With `--read-only` the words are images, and the top layer of each is mounted. If somebody has that
layer mounted already, the mount stays as it is, writable or not.
""",
    "unmount": f"{_MOUNTS}\nAn image that was mounted is unmounted as well; nothing is printed then.\n",
    "mounted": "A line is printed for each that is mounted.",
    "copy": """\
The last word says where to. A word with a colon is a path in a layer, which is mounted meanwhile;
any other is a path on the host. What a directory holds goes into the directory that the last word
names, and is merged with what is there; anything else is copied to the very name. Directories that
are missing are made.

No path leads out of its layer: links in it, absolute ones too, are followed inside.
""",
    "unshare": """\
Without a command, the shell. In the namespace the user is root, and his subordinate IDs
(/etc/subuid, /etc/subgid) are the others; the programs `newuidmap` and `newgidmap` set it up. All
commands of an ordinary user run so, if he has such IDs, unless `--unshare=false` is given. Files
that he does not own outside can be looked at and removed from inside.
""",
    "changes": f"""\
A line for each path: `Add`, `Modify` or `Delete`, and the path in quotes.

{_AGAINST}
""",
    "diff": f"""\
A layer that came in as a tar comes out byte for byte, compressed as it came; otherwise the tar is
written from the files.

{_AGAINST}
""",
    "diffsize": f"Counted are the contents of files that were added or modified, each inode once.\n\n{_AGAINST}",
    "applydiff": """\
The layer changes as a whole or not at all. Its digests, and what `diff` writes, are then those of
the stream.
""",
    "layer-parent-owners": _OWNERS,
    "container-parent-owners": _OWNERS,
    "storage-layers": "What a crash left, and has no record, is among them.",
    "create-storage-layer": "It has no record, so that no other command shows it; `gc` removes it.",
    "check": """\
Records, files and the driver are held against each other, the tar of each layer is put together again
and its digest compared, and the files' owners, modes and times with those of the tar.

With `--repair` damaged images and layers are removed if nothing needs them, with `--force` damaged
containers, too; `--dry-run` only says what would go. The exit status is 0 if nothing is damaged then.
""",
    "dedup": """\
The files of images are compared, byte by byte, where their size and hash are the same. This takes a
file system that can share blocks, such as btrfs or xfs; on others nothing is done.
""",
    "gc": """\
Directories of layers, images and containers that no record has, and what a crash left aside. With
`--dry-run` nothing is removed.
""",
    "get-image-dir": "It is for files that belong to the image, and goes with the image.",
    "get-image-run-dir": "It is for files that belong to the image, and need not outlive a reboot.",
    "get-container-dir": "It is for files of whoever runs the container, and goes with the container.",
    "get-container-run-dir": "It is for files of whoever runs the container, and need not outlive a reboot.",
    "config": """\
Printed is what the files `storage.conf`, their drop-ins and the environment set, whatever flags say;
no store is opened. Without `--explain` FILE has no effect. With it, FILE is read in place of the files
of this machine, and for each setting the value, the file and line or the variable that it comes from,
and what it replaces are printed; then keys that mean nothing, with the one that may be meant.
""",
    "status": "It goes to standard error, as `key: value`; with `--json` to standard output, as pairs.",
    "version": "It goes to standard error, as `key: value`; with `--json` to standard output, as pairs.",
    "wipe": "All containers, then all images, then all layers. Nobody is asked first.",
    "shutdown": "Layers that are mounted are an error; with `--force` they are unmounted, and it is one all the same.",
    "drivers": """\
Each driver is tried on an empty store of its own, in the place of the graph root, which is removed
again; the store itself is not opened. QUOTA: layers can be limited in size. IDMAP: mounts show the owners
that files have in a container, without copies. REFLINK: copies share their blocks. NATIVE DIFF: what
a layer changes is known without comparing two trees. Below the table stands what is in the way of the
others, and what would help.
""",
    "convert": """\
STORE is the graph root of the store that is there: it is only read, and stays as it was. The new one
is made beside it, in the directory STORE-DRIVER or the one that `--into` names, which is not there yet
or empty. All layers, images and containers come along, with their IDs, names and data; each layer is
compared with the old one, and the digest of its diff checked. What fails, or is interrupted, leaves
nothing behind, and can be begun again.

DRIVER is overlay, btrfs or vfs. `--storage-driver` says which driver is meant if the old store has
layers of several, `--image-store` the root of its images if they have one of their own; `--storage-opt`
is for the new store, but `zfs.fsname` for an old one of zfs. Stores of aufs, which no kernel has any
more, can be converted as well.

Not copied are the run root, and what other programs keep in the graph root, such as the `libpod` of
Podman. Nothing should run in the store meanwhile.
""",
    "completion": """\
For bash: `source <(layerhold completion bash)` in ~/.bashrc; for zsh: the output as `_layerhold` in a
directory of `$fpath`; for fish: the output as ~/.config/fish/completions/layerhold.fish.

Completed are commands, flags, files, and the IDs and names of what is in the store.
""",
    "manual": """\
`layerhold.1` and a page for each command, `layerhold-COMMAND.1`. The directory is made if need be;
`man -M` and $MANPATH look for pages in a directory `man1` below the one they are given.
""",
    **{f"list-{kind}-data": f"Their keys are printed. {_DATA}" for kind in ("layer", "image", "container")},
    **{f"get-{kind}-data": _DATA for kind in ("layer", "image", "container")},
    **{
        f"set-{kind}-data": f"What was there under KEY is replaced.\n{_DATA}"
        for kind in ("layer", "image", "container")
    },
}


def description(name: str) -> str:
    """Give the paragraphs on the command called `name`, in lines as wide as help is; "" if there are none."""
    return wrapped(DESCRIPTIONS.get(name, ""))


def wrapped(text: str) -> str:
    """Cut paragraphs into lines of at most 96 columns."""
    from textwrap import fill

    paragraphs = (fill(part, 96, break_on_hyphens=False, break_long_words=False) for part in text.split("\n\n"))
    return "\n\n".join(filter(None, paragraphs))
