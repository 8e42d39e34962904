"""How layers of the overlay driver are mounted: with which options, over which lowers, by the kernel or by a program.

A layer is mounted on its `merged`. To be read whole without that, it is mounted for the moment: that mount has no name,
so it goes with the descriptor that holds it, also when the process is killed.

In a user namespace the marks of overlay are `user.` attributes (overlay_home.py), and the mount is told so. A mount
program (overlay_program.py) mounts layers where the kernel cannot, or may not for this user.
"""

from __future__ import annotations

import os

from layerhold.blocks import contextmanager
from layerhold.drivers import overlay_home
from layerhold.drivers.base import is_safe
from layerhold.drivers.overlay_places import RESERVED
from layerhold.drivers.overlay_stack import older_uppers
from layerhold.tree.files import make_dirs, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerhold.drivers.base import MountOptions
    from layerhold.drivers.overlay_home import Attributes, Settings
    from layerhold.drivers.overlay_mount import MountSpec
    from layerhold.drivers.overlay_places import Places
    from layerhold.drivers.overlay_probe import Probe
    from layerhold.drivers.overlay_stack import Stack
    from layerhold.ids.mappings import IdMappings
    from layerhold.tree.trash import Aside


class Mounter:
    """Mounts the layers that are in `places`, each over what `stack` says.

    `by_program`: a mount program mounts, not the kernel. `metacopy`: the kernel has it, and it is wanted. `idmapped`:
    whether mounts may show other owners than the files have. What is mounted for the moment is so in `aside`.
    """

    def __init__(
        self,
        places: Places,
        stack: Stack,
        aside: Aside,
        probe: Probe,
        *,
        settings: Settings,
        attributes: Attributes,
        by_program: bool,
        metacopy: bool,
        idmapped: bool,
    ) -> None:
        self._places = places
        self._stack = stack
        self._aside = aside
        self._probe = probe
        self._options = settings.mount_options
        self._program = settings.mount_program
        self._mask = settings.mask
        self._attributes = attributes
        self._by_program = by_program
        self._metacopy = metacopy
        self._idmapped = idmapped

    def mount(self, id: str, options: MountOptions) -> str:
        """Mount the layer on its `merged`, unless it is mounted there already."""
        from layerhold.labels import mount_option

        merged = self._places.merged(id)
        diff = self._places.diff(id)
        if self.is_mounted(id):
            if not overlay_home.is_dead(merged):
                return merged
            overlay_home.detach(merged)
        make_dirs(merged)
        wanted = self._with_metacopy(options.options or self._options)
        read_only = options.read_only or not self._places.is_own(id)
        if not read_only:
            # Left by a volatile mount; while it is there the kernel refuses every other one.
            remove_tree(os.path.join(self._places.layer(id), "work", "work", "incompat", "volatile"))
        if options.volatile and (self._by_program or self._probe.volatile()):
            wanted.append("volatile")
        if labelled := mount_option(options.label):
            wanted.append(labelled)
        place = os.path.join(os.path.dirname(merged), "mapped")
        with self._mapped(id, self._stack.lowers(id), options.mappings, place) as lowers:
            spec = self._specify(id, merged, diff, lowers, wanted, read_only=read_only)
            self._mount(id, spec, wanted, options.mappings)
        return merged

    def unmount(self, id: str) -> None:
        """Unmount `merged`; the directory stays, unless it is in the run home."""
        if self.is_mounted(id):
            if self._by_program:
                from layerhold.drivers import overlay_program

                overlay_program.unmount(self._places.merged(id))
            else:
                overlay_home.detach(self._places.merged(id))
            if not self._places.is_own(id):
                overlay_home.remove_empty(self._places.merged(id), os.path.join(self._places.run_home, id))

    def is_mounted(self, id: str) -> bool:
        """Tell whether something is mounted on `merged`."""
        return is_safe(id, RESERVED) and overlay_home.is_mounted(self._places.merged(id))

    @contextmanager
    def whole(
        self, id: str, lowers: Sequence[str], mappings: IdMappings | None = None, *, partial: bool = False
    ) -> Iterator[str]:
        """Give the path of all files of a layer: its mount, or one without a name, for this block only.

        `partial`: it was mounted with `metacopy` or `redirect_dir` (overlay_partial.py).
        """
        if self.is_mounted(id):
            yield self._places.merged(id)
            return
        with self._aside.open() as temporary:
            place = temporary.place("view")
            os.mkdir(place, 0o700)
            options = self._with_metacopy(self._options)
            if partial:
                options.append("metacopy=on")  # renamed directories are followed, too
            with self._mapped(id, lowers, mappings, temporary.place("mapped")) as below:
                spec = self._specify(id, place, self._places.diff(id), below, options, read_only=True)
                self._mount(id, spec, options, mappings)
            try:
                fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            finally:
                overlay_home.detach(place)
        try:
            yield f"/proc/self/fd/{fd}/."  # the dot: the name alone is a link, and some look at links themselves
        finally:
            os.close(fd)

    def maps_at_mount(self) -> bool:
        """Ask the kernel, unless this is turned off; a mount program can."""
        return self._idmapped and (self._by_program or self._probe.mapped_lowers())

    def maps(self, id: str, mappings: IdMappings | None) -> IdMappings | None:
        """Give the maps with which layer `id` is to be mounted.

        Layers that were given new owners by copying have what they need in an older upper, and are left as they are.
        """
        if mappings is None or mappings.identity or any(older_uppers(self._places.layer(id))):
            return None
        return mappings if self.maps_at_mount() else None

    def _specify(
        self, id: str, target: str, diff: str, lowers: Sequence[str], options: Sequence[str], *, read_only: bool
    ) -> MountSpec:
        from layerhold.drivers.overlay_mount import specify

        here = self._places.layer(id)
        empty = os.path.join(here if self._places.is_own(id) else os.path.join(self._places.run_home, id), "empty")
        if not lowers:
            make_dirs(empty)
        return specify(
            target=target,
            diff=diff,
            work=os.path.join(here, "work"),
            lowers=lowers,
            empty=empty,
            options=[*options, *(() if self._by_program else self._attributes.options)],
            read_only=read_only,
        )

    def _mount(self, id: str, spec: MountSpec, options: Sequence[str], mappings: IdMappings | None) -> None:
        """Mount it by the program, or by the kernel."""
        if not self._by_program:
            from layerhold.drivers import overlay_mount

            overlay_mount.mount(spec)
            return
        from layerhold.archive.override_stat import is_overridden
        from layerhold.drivers import overlay_program

        program = self._program or overlay_program.find()
        maps, overridden = self.maps(id, mappings), self._mask is not None or is_overridden(self._places.diff(id))
        wanted = overlay_program.call(program, self._places.homes.own, spec, options, maps, overridden=overridden)
        overlay_program.mount(wanted)

    @contextmanager
    def _mapped(
        self, id: str, lowers: Sequence[str], mappings: IdMappings | None, place: str
    ) -> Iterator[Sequence[str]]:
        """Give the lowers with the owners that they have in a container, below `place`, to be mounted in this block."""
        maps = self.maps(id, mappings)
        if maps is None or self._by_program:
            yield lowers
            return
        from layerhold.drivers.overlay_mapped import mapped_lowers

        if self._places.is_own(id):
            os.chown(self._places.diff(id), *maps.root())  # the root of a mount is that of its upper
        with mapped_lowers(place, lowers, maps) as mapped:
            yield mapped

    def _with_metacopy(self, options: Sequence[str]) -> list[str]:
        """Ask for metacopy if the layers are made with it, and only where the kernel has it."""
        rest = [word for word in options if word != "metacopy=on"]
        return [*rest, "metacopy=on"] if self._metacopy else rest
