"""The overlay driver: each layer is a directory with what it changes, and the kernel shows them one over the other.

    <home>/<id>/diff/         the layer's own files; whiteouts are character devices 0/0
    <home>/<id>/link          the name of its link in <home>/l (overlay_links.py)
    <home>/<id>/lower, lower-layers   what it stands on, not in a base layer (overlay_stack.py)
    <home>/<id>/{work,merged}, and {empty} in a base layer
    <home>/backingFsBlockDev  to limit the size of layers by (overlay_quotas.py)
    <home>/tempdirs/          layers in the making, and those that are being deleted (tree/trash.py)

Layers of images may lie in a home of their own, and additional stores have homes that are only read (homes.py). What is
not in the driver's own home is mounted on `<run home>/<id>/merged`, to be read.

A layer is built whole in `tempdirs`, moved into place, and then gets its link: a crash leaves something aside, or a
layer whose record is incomplete. All paths go through the home, which is bind-mounted on itself (home_mount.py):
renaming across that mount would fail.

In a user namespace the marks of overlay are `user.` attributes (overlay_home.py). An ordinary user outside of one can
read what a namespace of his has made; the rest is refused, with what would help him.

A mount program (overlay_program.py) mounts layers where the kernel cannot, or may not for this user. What it has hidden
the kernel would show, so a home in which it wrote is noted as such (overlay_flag.py), stays with it, and is read
without any mount: several directories at once, as whole trees. A mounted layer is read in its mount, since there may be
what has not been written yet; so is one whose owners the program maps.

Reading a layer whole (to compare it with another one than its parent) mounts it for the moment (overlay_mounter.py).
"""

from __future__ import annotations

import os
import stat

from layerhold.blocks import ExitStack, contextmanager
from layerhold.drivers import home_mount, overlay_flag, overlay_home, overlay_links
from layerhold.drivers.base import FUSE_MARKS, OVERLAY_MARKS, Contents, Features, checked, is_safe
from layerhold.drivers.homes import Homes
from layerhold.drivers.overlay_places import RESERVED, Places, ids_in
from layerhold.drivers.overlay_probe import Probe
from layerhold.drivers.overlay_stack import Stack, older_uppers
from layerhold.errors import DriverError, DriverNotSupported, DriverPrerequisites, LayerWithoutFiles
from layerhold.linux import mountinfo
from layerhold.linux.idmap import in_user_namespace
from layerhold.tree.files import make_dirs
from layerhold.tree.trash import Aside, SeveralBins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from layerhold.drivers.base import Build, LayerSpec, MountOptions
    from layerhold.drivers.overlay_mounter import Mounter
    from layerhold.drivers.overlay_quotas import Quotas
    from layerhold.drivers.sizes import Limits
    from layerhold.ids.mappings import IdMappings
    from layerhold.progress import Callback, Meter
    from layerhold.tree.trash import Bin


class OverlayDriver:
    """Layers for the kernel's overlay, below `home`; what need not outlive a reboot is in `run_home`.

    `images` is the home of images if they have one of their own, `additional` those of additional stores. `idmapped`:
    whether mounts may show other owners than the files have.
    """

    name = "overlay"
    reserved = RESERVED

    def __init__(
        self,
        home: str,
        run_home: str,
        options: Sequence[str] = (),
        *,
        images: str = "",
        additional: Sequence[str] = (),
        idmapped: bool = True,
    ) -> None:
        settings = overlay_home.settings(options)
        self._ordinary = os.geteuid() != 0
        self._attributes = overlay_home.USER if self._ordinary or in_user_namespace() else overlay_home.TRUSTED
        self.home = home
        self.squash = settings.squash
        self._settings = settings
        self._idmapped = idmapped
        self._homes = Homes(own=home, images=images, additional=tuple(additional))
        self._places = Places(self._homes, run_home)
        self._stack = Stack(self._homes, self._restore_links)
        mount = mountinfo.mount_of(home)
        self._filesystem = overlay_home.backing_filesystem(mount, by_program=bool(self._settings.mount_program))
        self._asides = {
            place: Aside(os.path.join(place, "tempdirs"), before_sweep=overlay_home.unmount_below)
            for place in self._homes.writable
        }
        self._aside = self._asides[home]
        noted = {place: overlay_flag.is_noted(place) for place in self._homes.every}
        self._by_program = bool(self._settings.mount_program) or any(noted.values())
        self._probe = Probe(self._aside, run_home, settings.mount_options, self._attributes)
        self._metacopy = False
        self._made_mounter: Mounter | None = None
        self._made_quotas: Quotas | None = None
        self.features = Features(read_only=True, native_diff=True)
        if not self._ordinary or self._settings.mount_program:
            quota = overlay_home.can_limit(mount)
            self._set_up(noted, quota=quota, mount_home=settings.mount_home and not self._ordinary)
        elif not (os.path.isdir(home) and any(self.ids())):
            raise self._needs_root()

    def _set_up(self, noted: Mapping[str, bool | None], *, quota: bool, mount_home: bool) -> None:
        """Make the home, and find out what can be done in it. `quota`: whether there can be limits."""
        if self._settings.limits and not quota:
            raise overlay_home.no_limits(self._filesystem)
        for place in self._homes.writable:
            make_dirs(os.path.dirname(place))
            make_dirs(place, 0o755)
            make_dirs(os.path.join(place, "l"), 0o755)
        notes = self._notes_to_write(noted)
        if self._by_program:
            self.features = Features(reflink=True, volatile=True)
        else:
            self._ask_the_kernel()
        self.features = self.features.replace(quota=quota)
        for place, by_program in notes.items():
            overlay_flag.note(place, by_program=by_program)
        if mount_home:
            home_mount.mount_home(self.home)
        for aside in self._asides.values():
            aside.sweep()

    def _notes_to_write(self, noted: Mapping[str, bool | None]) -> dict[str, bool]:
        """Find out in which homes a mount program wrote, or is to write, where that is not noted yet."""
        notes = {}
        for home in self._homes.writable:
            if noted[home] is None or (self._settings.mount_program and not noted[home]):
                layers = (os.path.join(home, id) for id in ids_in(home))
                notes[home] = bool(self._settings.mount_program) or overlay_flag.found(layers)
        self._by_program = self._by_program or any(notes.values())
        return notes

    def _ask_the_kernel(self) -> None:
        try:
            answers = self._probe.answers()
        except DriverNotSupported:
            overlay_home.remove_empty(os.path.join(self.home, "l"), self._aside.base, self.home)
            raise
        self._metacopy = answers.metacopy
        self.features = Features(native_diff=answers.native_diff, reflink=True, volatile=True)

    def path(self, id: str) -> str:
        """Say where layer `id` is. Raises InvalidID for what cannot be a layer's name."""
        return self._places.layer(id)

    @contextmanager
    def building(
        self, id: str, parent: str | None, spec: LayerSpec, progress: Callback | None = None
    ) -> Iterator[Build]:
        """Make the layer's directory aside."""
        from layerhold.drivers.overlay_build import NewLayer

        self._refuse_ordinary()
        limits = overlay_home.limits_of(spec, self._settings, able=self.features.quota)
        if self._settings.mask is not None and spec.writable and not self._by_program:
            raise DriverError(
                f'creating read-write layer with ID "{id}": overlay: force_mask option for writeable layers is only '
                "supported with a mount_program",
                hint="set the option overlay.mount_program (fuse-overlayfs)",
            )
        if self._quotas:
            self._quotas.begin()
        home = self._homes.for_new(writable=spec.writable)
        final = os.path.join(home, checked(id, self.reserved))
        with self._asides[home].open() as temporary, self._without_limits(place := temporary.place()):
            files = self._make(place, parent, spec, limits)
            copied = bool(parent and spec.remapped)
            if parent and copied:
                self._copy_remapped(place, parent, spec, progress)
            lowers = (self._places.diff(parent), *self._stack.lowers(parent)) if parent else ()
            contents = self._layer(os.path.join(place, "diff"), lowers)
            contents = contents.replace(owners_inside=self._by_program and not spec.mappings)
            yield NewLayer(contents, place, final, lambda: self._remove(final, temporary), files=files, copied=copied)

    @contextmanager
    def duplicating(self, id: str, template: str, spec: LayerSpec, progress: Callback | None = None) -> Iterator[Build]:
        """Copy the template's own files aside, those in older uppers too."""
        from layerhold.tree.copy import copy_tree

        source = self.path(template)
        diff = self._places.diff(template)
        with self.building(id, self._stack.parent(template), spec) as build:
            copy_tree(diff, build.contents.path, progress=progress)
            for older in older_uppers(source):
                place = os.path.join(os.path.dirname(build.contents.path), os.path.basename(older))
                os.mkdir(place, 0o700)
                copy_tree(older, place, progress=progress)
            yield build

    @contextmanager
    def rebuilding(self, id: str, progress: Callback | None = None) -> Iterator[Build]:
        """Copy the layer's own files aside, to be changed and put back in their place."""
        from layerhold.drivers.overlay_build import ChangedLayer
        from layerhold.tree.copy import copy_tree

        self._refuse_ordinary()
        if self.is_mounted(id):
            raise DriverError(f"layer {id} is mounted, and cannot be changed below its mount", hint="unmount it first")
        with self._asides[self._homes.of(id)].open() as temporary:
            path, diff = self.path(id), self._places.diff(id)
            limits = self._quotas.of(path) if self._quotas else None
            source = diff if limits is None else path  # nothing can be moved into a layer that has a number of its own
            place = temporary.place("diff")
            os.mkdir(place, 0o700)
            with self._without_limits(place):
                with self._limited(place, limits):
                    copy_tree(source, place, progress=progress)
                contents = self._layer(os.path.join(place, os.path.relpath(diff, source)), self._stack.lowers(id))
                copied = any(older_uppers(path))
                contents = contents.replace(owners_inside=self._by_program and not copied)
                yield ChangedLayer(contents, place, source)

    @contextmanager
    def contents(self, id: str, *, against: str | None, mappings: IdMappings | None = None) -> Iterator[Contents]:
        """Give the layer's own files if `against` is what it stands on; else all files, mounted if need be."""
        lowers = self._stack.lowers(id)
        if self._by_program:
            if self._mounter.maps(id, mappings) is None and not self.is_mounted(id):
                yield self._layer(self._places.diff(id), lowers).replace(united=True)
                return
            with self._whole(id, lowers, mappings) as path:
                yield Contents(path=path)
            return
        diff = self._places.diff(id)
        # What an older upper changed is missing from `diff`, so then only the whole tree will do.
        alone = not any(older_uppers(self.path(id)))
        native = against == self._stack.parent(id) and alone and (self.features.native_diff or not lowers)
        partial = native and bool(lowers) and self._is_partial(diff)
        if native and not partial:
            yield self._layer(diff, lowers)
            return
        if lowers and not (partial or self._metacopy or self.is_mounted(id)):
            partial = any(map(self._is_partial, (diff, *lowers)))
        with self._whole(id, lowers, mappings, partial=partial) as path:
            yield Contents(path=path)

    def _is_partial(self, diff: str) -> bool:
        from layerhold.drivers.overlay_partial import is_partial

        return is_partial(diff, self._attributes.prefix)

    @contextmanager
    def own_files(self, id: str) -> Iterator[Contents]:
        """Give the layer's own files, those in older uppers too."""
        older = tuple(older_uppers(self.path(id)))
        if not older:
            yield self._layer(self._places.diff(id), ())
            return
        with self._whole(id, older) as path:
            yield Contents(path=path)

    def maps_at_mount(self) -> bool:
        """Ask the kernel, unless this is turned off; a mount program can."""
        return self._mounter.maps_at_mount()

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount the layer on its `merged`, unless it is mounted there already."""
        self._refuse_ordinary()
        if self._quotas is None or options.read_only or not self._places.is_own(id):
            return self._mounter.mount(id, options)
        with self._quotas.room(self.path(id)):
            return self._mounter.mount(id, options)

    def unmount(self, id: str) -> None:
        """Unmount `merged`; the directory stays, unless it is in the run home."""
        self._mounter.unmount(id)

    def is_mounted(self, id: str) -> bool:
        """Tell whether something is mounted on `merged`."""
        return self._mounter.is_mounted(id)

    @contextmanager
    def trash(self, meter: Meter | None = None) -> Iterator[Bin]:
        """Open a directory aside for what is removed, in each home that has layers of the store's own."""
        self._refuse_ordinary()
        with ExitStack() as stack:
            bins = {home: stack.enter_context(aside.open(meter)) for home, aside in self._asides.items()}
            yield SeveralBins(bins) if len(bins) > 1 else bins[self.home]

    def remove(self, id: str, trash: Bin) -> None:
        """Remove the layer's link, then move its directory into the trash."""
        if not is_safe(id, self.reserved) or self._homes.of(id) not in self._homes.writable:
            return
        self.unmount(id)
        overlay_home.clear(os.path.join(self.path(id), "mapped"))
        self._remove(self.path(id), trash)

    def _remove(self, directory: str, trash: Bin) -> None:
        if self._quotas:
            self._quotas.forget(directory)
        link = overlay_links.read_link_name(directory)
        if link:
            trash.take(os.path.join(os.path.dirname(directory), "l", link))
        trash.take(directory)

    def exists(self, id: str) -> bool:
        """Tell whether there is a directory for `id`."""
        return is_safe(id, self.reserved) and os.path.isdir(self.path(id))

    def ids(self) -> Iterator[str]:
        """List the directories that are layers of the store's own."""
        for home in self._homes.writable:
            yield from ids_in(home)

    def describe(self) -> Sequence[tuple[str, str]]:
        """Say what Go's `status` says."""
        able = not self.features.read_only
        return (
            ("Backing Filesystem", self._filesystem),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", _word(self.features.native_diff)),
            ("Using metacopy", _word(self._metacopy)),
            ("Supports shifting", _word(able and (self._by_program or self._probe.mapped_lowers()))),
            ("Supports volatile", _word(able and (self._by_program or self._probe.volatile()))),
        )

    def locations(self, id: str) -> Mapping[str, str]:
        """Say where the parts of the layer are."""
        found = {
            "WorkDir": os.path.join(self.path(id), "work"),
            "MergedDir": self._places.merged(id),
            "UpperDir": self._places.diff(id),
        }
        lowers = self._stack.lowers(id)
        return {**found, "LowerDir": ":".join(lowers)} if lowers else found

    def sweep(self) -> None:
        """Remove what a crash left aside, and make lost links again."""
        self._refuse_ordinary()
        for home, aside in self._asides.items():
            aside.sweep()
            if not overlay_links.are_as_many(home):
                overlay_links.restore_links(home, ids_in(home))

    def _restore_links(self) -> None:
        for home in self._homes.writable:
            overlay_links.restore_links(home, ids_in(home))

    def shutdown(self) -> None:
        """Undo the bind mount of the home."""
        self._refuse_ordinary()
        if not self._ordinary:
            home_mount.unmount_home(self.home)

    # --- making

    @property
    def _quotas(self) -> Quotas | None:
        """The limits of layers, where there can be any; loaded when they are needed."""
        if self._made_quotas is None and self.features.quota:
            from layerhold.drivers.overlay_quotas import Quotas

            self._made_quotas = Quotas(self.home, self._aside.base)
        return self._made_quotas

    @contextmanager
    def _limited(self, place: str, limits: Limits | None) -> Iterator[None]:
        """Limit the empty directory `place`, which is filled in this block; None: do not even count what is in it."""
        if self._quotas is None or limits is None:
            yield
            return
        with self._quotas.given(place, limits):
            yield

    @contextmanager
    def _without_limits(self, place: str) -> Iterator[None]:
        """Take away, at the end of the block, the limits of what is thrown away then: a layer that was not published.

        Or the one that was there before.
        """
        try:
            yield
        finally:
            if self._quotas:
                self._quotas.forget(place)

    def _layer(self, path: str, lowers: Sequence[str]) -> Contents:
        """Give the files of one layer, over `lowers`."""
        deletions = FUSE_MARKS if self._by_program else OVERLAY_MARKS
        prefix = self._attributes.prefix
        return Contents(
            path=path, deletions=deletions, lowers=tuple(lowers), xattr_prefix=prefix, mask=self._settings.mask
        )

    def _make(self, place: str, parent: str | None, spec: LayerSpec, limits: Limits | None) -> Sequence[str]:
        """Make all parts of a layer in the directory `place`; give the names of its files."""
        from layerhold.drivers.overlay_build import make

        root = spec.mappings.root() if spec.mappings else (0, 0)
        below = os.path.join(self.path(parent), "diff") if parent else ""
        if parent and not os.path.isdir(below):
            raise LayerWithoutFiles(parent, f"Stat {below}")
        files = {"link": overlay_links.new_link(), **(self._stack.files_over(parent) if parent else {})}
        overridden = self._by_program or self._settings.mask is not None
        os.mkdir(place, 0o700)
        with self._limited(place, limits):
            make(place, below, root=root, files=files, mask=self._settings.mask, overridden=overridden)
        return tuple(files)

    def _copy_remapped(self, place: str, parent: str, spec: LayerSpec, progress: Callback | None) -> None:
        """Make an older upper of all that the parent shows, with new owners: Go copies it up to the same place."""
        from layerhold.ids.owners import Owners
        from layerhold.tree.copy import copy_tree

        older, diff = os.path.join(place, "diff1"), os.path.join(place, "diff")
        os.mkdir(older, 0o700)
        owners = Owners(spec.parent_mappings, spec.mappings)
        with self._whole(parent, self._stack.lowers(parent)) as whole:
            copy_tree(whole, older, owners=owners, keep_top=True, squash=self.squash, progress=progress)
        for name in () if self._ordinary else ("diff", "work"):
            os.chown(os.path.join(place, name), *(spec.mappings.root() if spec.mappings else (0, 0)))
        os.chmod(diff, stat.S_IMODE(os.stat(older).st_mode))

    @property
    def _mounter(self) -> Mounter:
        """What mounts layers; made when it is needed, which it is not for a listing."""
        if self._made_mounter is None:
            from layerhold.drivers.overlay_mounter import Mounter

            self._made_mounter = Mounter(
                self._places,
                self._stack,
                self._aside,
                self._probe,
                settings=self._settings,
                attributes=self._attributes,
                by_program=self._by_program,
                metacopy=self._metacopy,
                idmapped=self._idmapped and not self.features.read_only,
            )
        return self._made_mounter

    def _whole(
        self, id: str, lowers: Sequence[str], mappings: IdMappings | None = None, *, partial: bool = False
    ) -> AbstractContextManager[str]:
        """Give the path of all files of a layer: its mount, or one without a name, for this block only."""
        if not self.is_mounted(id):
            self._refuse_ordinary()
        return self._mounter.whole(id, lowers, mappings, partial=partial)

    def _refuse_ordinary(self) -> None:
        """Refuse what takes mounts, or files of several owners, to who is not root, not even of a user namespace."""
        if self.features.read_only:
            raise self._needs_root()

    @staticmethod
    def _needs_root() -> DriverPrerequisites:
        from layerhold.ids.rootless import advice

        hint = f"{advice()}; or set the option overlay.mount_program (fuse-overlayfs)"
        return DriverPrerequisites("overlay needs root, or a user namespace", hint=hint)


def _word(value: bool) -> str:
    return "true" if value else "false"
