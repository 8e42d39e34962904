"""The overlay driver: each layer is a directory with what it changes, and the kernel shows them one over the other.

    <home>/<id>/diff/         the layer's own files; whiteouts are character devices 0/0
    <home>/<id>/link          the name of its link in <home>/l (overlay_links.py)
    <home>/<id>/lower         the links of the layers below, nearest first, `:` between (not in a base layer)
    <home>/<id>/lower-layers  their IDs; since Go's 1.64, which goes by them where they are
    <home>/<id>/work/, merged/, and in a base layer empty/
    <home>/<id>/diff1/, diff2/, ...  older uppers of stores made before 1.40
    <home>/tempdirs/          layers in the making, and those that are being deleted (tree/trash.py)

A layer is built whole in `tempdirs`, moved into place, and then gets its link: a crash leaves something aside, or a layer
whose record is incomplete. All paths go through the home, which is bind-mounted on itself as Go does it, so that mounts
below it stay private; renaming across that mount would fail.

Reading a layer whole (to compare it with another one than its parent) mounts it for the moment. The mount has no name:
it goes with the descriptor that holds it, so also when the process is killed.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from layerhold.drivers import overlay_links, overlay_mount
from layerhold.drivers.base import OVERLAY_MARKS, Contents, Features, is_safe
from layerhold.drivers.options import parse
from layerhold.drivers.overlay_probe import Probe
from layerhold.errors import DriverError, DriverIncompatibleFS, DriverPrerequisites, InvalidID, LayerUnknown
from layerhold.linux import mounts
from layerhold.tree.files import make_dirs, remove_tree, sync_tree
from layerhold.tree.trash import Aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.tree.trash import TempDir

OPTIONS = frozenset(
    "mountopt mount_program skip_mount_home ignore_chown_errors imagestore additionalimagestore additionallayerstore "
    "size inodes force_mask use_composefs sync override_kernel_check".split()
)
# What these mean is not built yet; a store that was set up with them must not be used without them.
_NOT_YET = (
    "mount_program",
    "imagestore",
    "additionalimagestore",
    "additionallayerstore",
    "size",
    "inodes",
    "force_mask",
    "use_composefs",
)

# <linux/magic.h>, with the names that Go's `status` prints
_FILESYSTEMS = {
    0x61756673: "aufs",
    0x9123683E: "btrfs",
    0xF15F: "ecryptfs",
    0xEF53: "extfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x794C7630: "overlayfs",
    0x01021994: "tmpfs",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}
_REFUSED = ("aufs", "ecryptfs", "overlayfs")


class OverlayDriver:
    """Layers for the kernel's overlay, below `home`; what need not outlive a reboot is in `run_home`."""

    name = "overlay"
    reserved = frozenset({"l", "staging", "tempdirs", "backingFsBlockDev"})

    def __init__(self, home: str, run_home: str, options: Sequence[str] = ()) -> None:
        settings = parse(options, "overlay", OPTIONS)
        for key in _NOT_YET:
            if settings.get(key) not in ("", "false"):
                raise DriverError(f"overlay: the option {key} is not offered yet")
        if os.geteuid() != 0:
            raise DriverPrerequisites("overlay needs root here", hint="use the driver vfs, which works for any user")
        self.home = home
        self.squash = settings.flag("ignore_chown_errors")
        self._options = tuple(word for word in settings.get("mountopt").split(",") if word)
        make_dirs(home)
        self._filesystem = _backing_filesystem(home)
        self._links = os.path.join(home, "l")
        make_dirs(self._links, 0o755)
        self._aside = Aside(os.path.join(home, "tempdirs"), before_sweep=_unmount_below)
        self._foreign = _read(os.path.join(home, ".has-mount-program")).strip() == "true"
        self._probe = Probe(self._aside, run_home, self._options)
        answers = self._probe.answers()
        self._metacopy = answers.metacopy
        self.features = Features(native_diff=answers.native_diff, reflink=True, volatile=True)
        if not settings.flag("skip_mount_home"):
            self._mount_home()
        self._aside.sweep()

    def path(self, id: str) -> str:
        """Say where layer `id` is. Raises InvalidID for what cannot be a layer's name."""
        if not is_safe(id, self.reserved):
            raise InvalidID(f"{id!r} is no ID that a layer can have")
        return os.path.join(self.home, id)

    @contextmanager
    def building(self, id: str, parent: str | None, spec: LayerSpec) -> Iterator[Build]:
        """Make the layer's directory aside."""
        self._refuse_mount_program()
        with self._aside.open() as temporary:
            place = temporary.place(id)
            link = self._make(place, parent, spec)
            yield _NewLayer(self, id, place, link, temporary, self._lowers(parent) if parent else ())

    @contextmanager
    def rebuilding(self, id: str) -> Iterator[Build]:
        """Copy the layer's own files aside, to be changed and put back in their place."""
        from layerhold.tree.copy import copy_tree

        self._refuse_mount_program()
        if self.is_mounted(id):
            raise DriverError(f"layer {id} is mounted, and cannot be changed below its mount", hint="unmount it first")
        with self._aside.open() as temporary:
            place = temporary.place("diff")
            os.mkdir(place, 0o700)
            copy_tree(self._diff(id), place)
            yield _ChangedLayer(self._diff(id), place, temporary, self._lowers_below(id))

    @contextmanager
    def contents(self, id: str, *, against: str | None) -> Iterator[Contents]:
        """Give the layer's own files if `against` is what it stands on; else all files, mounted if need be."""
        self._refuse_mount_program()
        lowers = self._lowers_below(id)
        # What an older upper changed is missing from `diff`, so then only the whole tree will do.
        alone = not any(_older_uppers(self.path(id)))
        if against == self._parent(id) and alone and (self.features.native_diff or not lowers):
            yield Contents(path=self._diff(id), deletions=OVERLAY_MARKS, lowers=lowers)
            return
        with self._whole(id, lowers) as path:
            yield Contents(path=path)

    @contextmanager
    def own_files(self, id: str) -> Iterator[Contents]:
        """Give the layer's own files."""
        yield Contents(path=self._diff(id), deletions=OVERLAY_MARKS, lowers=())

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount the layer on its `merged`, unless it is mounted there already."""
        self._refuse_mount_program()
        merged = os.path.join(self.path(id), "merged")
        diff = self._diff(id)
        if self.is_mounted(id):
            return merged
        make_dirs(merged)
        wanted = self._with_metacopy(options.options or self._options)
        # Left by a volatile mount; while it is there the kernel refuses every other one.
        remove_tree(os.path.join(self.path(id), "work/work/incompat/volatile"))
        if options.volatile and self._probe.volatile():
            wanted.append("volatile")
        if options.label:
            wanted.append(f'context="{options.label}"')
        spec = self._specify(id, merged, diff, self._lowers_below(id), wanted, read_only=options.read_only)
        overlay_mount.mount(spec, self.home)
        return merged

    def unmount(self, id: str) -> None:
        """Unmount `merged`; the directory stays."""
        if self.is_mounted(id):
            mounts.umount(os.path.join(self.path(id), "merged"), mounts.MNT_DETACH)

    def is_mounted(self, id: str) -> bool:
        """Tell whether something is mounted on `merged`: it is on another device than the directory above it."""
        if not is_safe(id, self.reserved):
            return False
        try:
            return os.stat(os.path.join(self.path(id), "merged")).st_dev != os.stat(self.path(id)).st_dev
        except FileNotFoundError:
            return False

    @contextmanager
    def trash(self) -> Iterator[TempDir]:
        """Open a directory aside for what is removed."""
        with self._aside.open() as temporary:
            yield temporary

    def remove(self, id: str, trash: TempDir) -> None:
        """Remove the layer's link, then move its directory into the trash."""
        if not is_safe(id, self.reserved):
            return
        self.unmount(id)
        link = overlay_links.read_link_name(self.path(id))
        if link:
            trash.take(os.path.join(self._links, link))
        trash.take(self.path(id))

    def exists(self, id: str) -> bool:
        """Tell whether there is a directory for `id`."""
        return is_safe(id, self.reserved) and os.path.isdir(self.path(id))

    def ids(self) -> Iterator[str]:
        """List the directories that are layers."""
        with os.scandir(self.home) as entries:
            for entry in entries:
                if is_safe(entry.name, self.reserved) and entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` says."""
        return (
            ("Backing Filesystem", self._filesystem),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", _word(self.features.native_diff)),
            ("Using metacopy", _word(self._metacopy)),
            ("Supports shifting", "false"),
            ("Supports volatile", _word(self._probe.volatile())),
        )

    def locations(self, id: str) -> Mapping[str, str]:
        """Say where the parts of the layer are."""
        found = {
            "WorkDir": os.path.join(self.path(id), "work"),
            "MergedDir": os.path.join(self.path(id), "merged"),
            "UpperDir": self._diff(id),
        }
        lowers = self._lowers_below(id)
        return {**found, "LowerDir": ":".join(lowers)} if lowers else found

    def sweep(self) -> None:
        """Remove what a crash left aside, and make lost links again."""
        self._aside.sweep()
        ids = list(self.ids())
        if len(ids) != len(os.listdir(self._links)):
            overlay_links.restore_links(self.home, ids)

    def shutdown(self) -> None:
        """Undo the bind mount of the home."""
        if os.path.realpath(self.home) in mounts.mount_points():
            mounts.umount(self.home, mounts.MNT_DETACH)

    # --- making

    def _make(self, place: str, parent: str | None, spec: LayerSpec) -> str:
        """Make all parts of a layer in the directory `place`; give the name of its link."""
        mapped = spec.mappings.root() if spec.mappings else (0, 0)
        mode, owner = 0o555, mapped
        if parent is not None:
            info = os.stat(self._diff(parent))
            mode, owner = stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)
        os.mkdir(place, 0o700)
        os.chown(place, *mapped)
        for name in ("work", "merged") if parent else ("work", "merged", "empty"):
            os.mkdir(os.path.join(place, name), 0o700)
            os.chown(os.path.join(place, name), *owner)
        diff = os.path.join(place, "diff")
        os.mkdir(diff)
        os.chown(diff, *owner)
        os.chmod(diff, mode)
        link = overlay_links.new_link()
        _write(os.path.join(place, "link"), link)
        if parent is not None:
            _write(os.path.join(place, "lower"), ":".join(self._lower_links(parent)))
            _write(os.path.join(place, "lower-layers"), ":".join([parent, *self._ids_below(parent)]))
        return link

    def _lower_links(self, parent: str) -> Iterator[str]:
        yield f"l/{self._link(parent)}"
        below = _read(os.path.join(self.path(parent), "lower"))
        if below:
            yield below

    def _link(self, id: str) -> str:
        link = overlay_links.read_link_name(self.path(id))
        if not link:
            raise DriverError(f"layer {id}: its file {self.path(id)}/link is damaged or missing")
        return link

    # --- what is below

    def _parent(self, id: str) -> str | None:
        return next(iter(self._ids_below(id)), None)

    def _ids_below(self, id: str) -> list[str]:
        """The IDs of the layers below `id`, nearest first; taken from the links where Go before 1.64 made the layer."""
        named = _read(os.path.join(self.path(id), "lower-layers"))
        if named:
            return named.split(":")
        links = _read(os.path.join(self.path(id), "lower"))
        return [self._id_of_link(id, link) for link in links.split(":")] if links else []

    def _id_of_link(self, id: str, link: str) -> str:
        path = os.path.join(self.home, link)
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            overlay_links.restore_links(self.home, self.ids())
            try:
                target = os.readlink(path)
            except FileNotFoundError:
                raise DriverError(f"layer {id}: the layer that {link} stands for is missing") from None
        return os.path.basename(os.path.dirname(target))

    def _lowers_below(self, id: str) -> tuple[str, ...]:
        """The directories below layer `id`, nearest first. Raises DriverError, which names one that is missing."""
        lowers = [*_older_uppers(self.path(id))]
        for below in self._ids_below(id):
            diff = os.path.join(self.path(below), "diff")
            if not os.path.isdir(diff):
                raise DriverError(f"layer {id}: the layer {below} below it is missing ({diff})")
            lowers += [diff, *_older_uppers(self.path(below))]
        return tuple(lowers)

    def _lowers(self, parent: str) -> tuple[str, ...]:
        """The directories below a new layer over `parent`."""
        return (self._diff(parent), *self._lowers_below(parent))

    def _diff(self, id: str) -> str:
        path = os.path.join(self.path(id), "diff")
        if not os.path.isdir(path):
            raise LayerUnknown(id, f"the driver has no directory {path}")
        return path

    # --- mounting

    def _specify(
        self, id: str, target: str, diff: str, lowers: Sequence[str], options: Sequence[str], *, read_only: bool
    ) -> overlay_mount.MountSpec:
        here = self.path(id)
        empty = os.path.join(here, "empty")
        if not lowers:
            make_dirs(empty)
        return overlay_mount.specify(
            target=target,
            diff=diff,
            work=os.path.join(here, "work"),
            lowers=lowers,
            empty=empty,
            options=options,
            read_only=read_only,
        )

    @contextmanager
    def _whole(self, id: str, lowers: Sequence[str]) -> Iterator[str]:
        """Give the path of all files of a layer: its mount, or one without a name, for this block only."""
        if self.is_mounted(id):
            yield os.path.join(self.path(id), "merged")
            return
        with self._aside.open() as temporary:
            place = temporary.place("view")
            os.mkdir(place, 0o700)
            options = self._with_metacopy(self._options)
            spec = self._specify(id, place, self._diff(id), lowers, options, read_only=True)
            overlay_mount.mount(spec, self.home)
            try:
                fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            finally:
                mounts.umount(place, mounts.MNT_DETACH)
        try:
            yield f"/proc/self/fd/{fd}/."  # the dot: the name alone is a link, and some look at links themselves
        finally:
            os.close(fd)

    def _with_metacopy(self, options: Sequence[str]) -> list[str]:
        """Ask for metacopy if the layers are made with it, and only where the kernel has it."""
        rest = [word for word in options if word != "metacopy=on"]
        return [*rest, "metacopy=on"] if self._metacopy else rest

    def _mount_home(self) -> None:
        """Bind-mount the home on itself and make it private, once."""
        if os.path.realpath(self.home) not in mounts.mount_points():
            mounts.mount(self.home, self.home, "none", mounts.MS_BIND)
            mounts.mount("none", self.home, "none", mounts.MS_PRIVATE)

    def _refuse_mount_program(self) -> None:
        """Refuse a home that fuse-overlayfs filled: its whiteouts are files, which the kernel would show."""
        if self._foreign:
            raise DriverError(f"{self.home} was filled by a mount program, which is not offered yet")


class _NewLayer:
    """A layer in the making."""

    def __init__(
        self, driver: OverlayDriver, id: str, place: str, link: str, temporary: TempDir, lowers: tuple[str, ...]
    ) -> None:
        self.contents = Contents(path=os.path.join(place, "diff"), deletions=OVERLAY_MARKS, lowers=lowers)
        self._driver = driver
        self._id = id
        self._place = place
        self._link = link
        self._temporary = temporary

    def sync(self) -> None:
        """Make the files durable."""
        sync_tree(self._place)

    def publish(self) -> None:
        """Move the directory into its place, then make its link; what a crash left there is thrown away."""
        driver = self._driver
        driver.remove(self._id, self._temporary)
        os.rename(self._place, driver.path(self._id))
        overlay_links.make_link(driver.home, self._id, self._link)


class _ChangedLayer:
    """A layer's own files, copied aside and changed."""

    def __init__(self, diff: str, place: str, temporary: TempDir, lowers: tuple[str, ...]) -> None:
        self.contents = Contents(path=place, deletions=OVERLAY_MARKS, lowers=lowers)
        self._diff = diff
        self._temporary = temporary

    def sync(self) -> None:
        """Make the files durable."""
        sync_tree(self.contents.path)

    def publish(self) -> None:
        """Swap the two directories in one step; the old one goes with the place aside."""
        from layerhold.linux.files import RENAME_EXCHANGE, renameat2

        renameat2(self.contents.path, self._diff, RENAME_EXCHANGE)


def _backing_filesystem(home: str) -> str:
    name = _FILESYSTEMS.get(mounts.filesystem_type(home), "<unknown>")
    if name in _REFUSED:
        raise DriverIncompatibleFS(
            f"'overlay' is not supported over {name}, a mount_program is required", hint="use the driver vfs"
        )
    return name


def _unmount_below(directory: str) -> None:
    """Unmount what a killed process had mounted in its place aside."""
    above = os.path.realpath(directory) + "/"
    for point in mounts.mount_points():
        if point.startswith(above):
            mounts.umount(point, mounts.MNT_DETACH)


def _older_uppers(directory: str) -> Iterator[str]:
    number = 1
    while os.path.isdir(path := os.path.join(directory, f"diff{number}")):
        yield path
        number += 1


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "x") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)


def _word(value: bool) -> str:
    return "true" if value else "false"
