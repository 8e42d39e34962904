"""The layer below a container: the top of its image, or a copy of that with other owners.

A container has maps: who in it is who on the host. Where the driver can show layers with other owners when they are
mounted, it stands on the image's top layer as it is. Where it cannot, it stands on a copy whose files have been given
new owners once; the copy is kept with the image (`mapped-layers`), and the next container with the same maps stands on
it, too. An image of an additional store cannot be given one: then the container's own layer is the copy.

A copy's parent in the records is that of the layer that was copied; the driver puts it over that layer itself.
"""

from __future__ import annotations

import os
import stat

from layerhold.drivers.base import LayerSpec
from layerhold.errors import ImageUnknown, LayerUnknown
from layerhold.identifiers import new_id
from layerhold.ids.mappings import IdMappings, effective
from layerhold.records.intents import Intent, noted
from layerhold.records.model import LayerRecord, now
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layerhold.archive.united import United
    from layerhold.drivers.base import Driver
    from layerhold.ids.owners import Owners
    from layerhold.images import Images
    from layerhold.progress import Callback
    from layerhold.records.model import ImageRecord
    from layerhold.tables import Views

AS_IT_IS, AT_MOUNT, KEPT_COPY, COPY, OWN_COPY = "as it is", "at mount", "kept copy", "copy", "own copy"


class Base(Value):
    """What a container is made on: a layer (None: nothing), its image, the maps, and the way they come about.

    AS_IT_IS: the owners are right. AT_MOUNT: the mount shows them so. KEPT_COPY: an earlier copy has them. COPY: a copy
    is to be made and kept with the image. OWN_COPY: the container's layer is the copy.
    """

    image: ImageRecord | None
    layer: LayerRecord | None
    mappings: IdMappings | None
    way: str


class Plan(Value):
    """What making a container takes: the `way` (see Base), and, of a copy, how many files and bytes are copied."""

    way: str
    files: int = 0
    bytes: int = 0


def find(views: Views, image: str | None, mappings: IdMappings | None, driver: Driver) -> Base:
    """Find what a container of `image` with `mappings` (None: those of the image's layers) is to stand on.

    Raises ImageUnknown, LayerUnknown, InvalidMappings.
    """
    if not image:
        return Base(image=None, layer=None, mappings=effective(mappings, None), way=AS_IT_IS)
    source = views.images.find(image)
    if source is None:
        raise ImageUnknown(image, f'locating image with ID "{image}"')
    if not source.layer:
        return Base(image=source, layer=None, mappings=effective(mappings, None), way=AS_IT_IS)
    top = views.layers.get(source.layer)
    if top is None:
        raise LayerUnknown(source.layer)
    wanted = effective(mappings, top.mappings)
    copies = [layer for id in source.mapped_layers if (layer := views.layers.get(id)) is not None]
    for layer in (top, *copies):
        if layer.mappings == wanted:
            way = AS_IT_IS if layer is top else KEPT_COPY
            return Base(image=source, layer=layer, mappings=wanted, way=way)
    if top.mappings is None and driver.maps_at_mount():
        return Base(image=source, layer=top, mappings=wanted, way=AT_MOUNT)
    return Base(image=source, layer=top, mappings=wanted, way=OWN_COPY if source.read_only else COPY)


def plan(base: Base, driver: Driver, progress: Callback | None = None) -> Plan:
    """Say what making the container takes; looks at every file that would be copied. Raises StorageError, OSError."""
    if base.way not in (COPY, OWN_COPY) or base.layer is None:
        return Plan(way=base.way)
    from layerhold.comparing import tree_of
    from layerhold.drivers import ownership
    from layerhold.ids.owners import Owners

    maps = base.layer.mappings, base.mappings
    with driver.contents(base.layer.id, against=None) as contents:
        if contents.united:
            files, size = _counted(tree_of(contents), Owners(*maps), progress)
            return Plan(way=base.way, files=files, bytes=size)
        counted = ownership.plan(contents.path, *maps, skip_root=True, progress=progress)
    return Plan(way=base.way, files=counted.files, bytes=counted.bytes)


def _counted(tree: str | United, owners: Owners, progress: Callback | None) -> tuple[int, int]:
    """Count the files of a tree that no mount shows, as `ownership.plan` does, and their bytes."""
    from layerhold.archive.changes import walk
    from layerhold.archive.united import opened
    from layerhold.progress import counted, metering

    files = size = 0
    seen: set[tuple[int, int]] = set()
    with metering(progress, "looking at owners") as meter, opened(tree) as root:
        for path, _, _ in counted(walk(root), meter):
            info = root.lstat(path)
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                if (inode := (info.st_dev, info.st_ino)) in seen:
                    continue
                seen.add(inode)
            files += 1
            changes = owners.of(info, os.fsdecode(path)) != (info.st_uid, info.st_gid)
            size += info.st_size if changes and stat.S_ISREG(info.st_mode) else 0
    return files, size


def make_copy(images: Images, base: Base, progress: Callback | None = None) -> LayerRecord:
    """Make a copy of the image's top layer with other owners, and keep it with the image.

    What somebody else made meanwhile is taken instead. Raises ImageUnknown, LayerUnknown, StorageError (an owner whom
    the maps do not cover), OSError; then nothing of the copy is left.
    """
    assert base.image is not None
    assert base.layer is not None
    layers, top = images.layers, base.layer
    copy = top.replace(
        id=new_id(),
        names=(),
        created=now(),
        mappings=base.mappings,
        flags={},
        big_data_names=(),
        origin=layers.files.of_images,
        read_only=False,
    )
    spec = LayerSpec(writable=False, mappings=base.mappings, parent_mappings=top.mappings)
    with layers.driver.building(copy.id, top.id, spec, progress) as build, layers.files.aside.open() as aside:
        split = layers.maker.copied_split(top, aside)
        build.sync()
        with images._tables.writing("layers", "images", also_reading=("containers",)) as editors:
            again = find(editors, base.image.id, base.mappings or IdMappings(), layers.driver)
            if again.way != COPY or again.layer is None:
                return again.layer or top
            assert again.image is not None
            with noted(images.home(again.image), Intent(id=again.image.id, layers=(copy.id,))):
                layers.maker.put(editors, copy, top, build, split)
                mapped = (*again.image.mapped_layers, copy.id)
                editors.images.put(again.image.replace(mapped_layers=mapped))
                editors.images.save()
    return copy
