"""What the command is asked to do on twin stores: for each command of its table, the lines that are tried.

A row is one or more command lines, separated by ` ; `, that run one after the other on a store of its own, which
starts as `TEMPLATE` makes it. After `~ ` the errors' texts are each program's own. `{files}` is a folder of inputs, the
same for both, `{out}` one for outputs, of each its own. `<name` at the end of a line gives the command an input as
standard input. A line that ends in a backslash goes on in the next.
"""

from __future__ import annotations

BASE, TOP, EMPTY, PACKED, SHARED = (digit * 64 for digit in "12345")
IMAGE, BARE, SECOND = (digit * 64 for digit in "abc")
BOX, PLAIN = (digit * 64 for digit in "de")
MISSING = "9" * 64

IDS = {
    "base": BASE,
    "top": TOP,
    "empty": EMPTY,
    "packed": PACKED,
    "shared": SHARED,
    "image": IMAGE,
    "bare": BARE,
    "second": SECOND,
    "box": BOX,
    "plain": PLAIN,
    "missing": MISSING,
}

# base <- top <- packed, base <- empty; image on top, second on empty, bare on nothing; box of image, plain of nothing.
TEMPLATE = """
import-layer -i {base} -n base -f {files}/base.tar
import-layer -i {top} -n top -n other-top -f {files}/top.tar {base}
import-layer -i {packed} -n packed -r -f {files}/packed.tar.gz {top}
create-layer -i {empty} -n empty {base}
create-layer -i {shared} -n shared
create-image -i {image} -n localhost/image:1 -n image -m words {top}
create-image -i {bare} -n bare
create-image -i {second} -n shared {empty}
set-image-data -f {files}/manifest {image} manifest
set-image-data -f {files}/config {image} sha256:config
create-container -i {box} -n box -m {files} {image}
create-container -i {plain} -n plain -n shared {bare}
set-container-data -f {files}/config {box} config
"""

# What is asked of every command, with the words that it needs at least.
FOR_EACH = "{command} --help ; {command} --no-such-flag ; {command} -Z ; {command} ; {command} w x y z"

GLOBAL = """
--help
-h
--no-such-flag
-Z
--graph
-gX
--
-
no-such-command
-D=maybe layers
--debug=false layers -j
layers --json=maybe
layers --json=T
layers -j=false
layers --json=
layers -tq
layers ---json
layers -
layers --
layers -- -j
layers -=
layers -jx
layers -U=false
--unshare=false layers
layers -U=maybe
layers -xj
layers --graph
layers --storage-opt
--help layers
--help=false layers
--storage-driver='{driver}' layers
layers --storage-driver="{driver}"
-s no-such-driver layers
--storage-opt no.such=option layers
-s devicemapper layers
--storage-opt zfs.size=1 layers -q
--storage-opt aufs.size=1 layers
--storage-opt {driver}.a.b=1 layers
--storage-opt nonsense layers
--storage-opt {driver}.ignore_chown_errors=maybe layers
--storage-opt {driver}.mountopt= layers -q
-s {driver} --storage-opt {driver}.nonsense=1 layers
--storage-opt overlay.size=8M layers
--storage-opt overlay.inodes=100 layers
--storage-opt overlay.size=0 layers -q
--storage-opt overlay.size=big layers
--storage-opt overlay.inodes=many layers
--storage-opt overlay.inodes=18446744073709551616 layers
"""

# What only reads and writes records, or prints words: neither files of layers nor mounts have a part in it. In `podman
# unshare` it is tried on overlay alone, which is what Podman takes there; all else on each driver.
RECORDS_ALONE = """
applydiff-using-staging-dir create-image exists image images container containers list-layer-data get-layer-data
set-layer-data list-image-data get-image-data get-image-data-size get-image-data-digest set-image-data
list-container-data get-container-data get-container-data-size get-container-data-digest set-container-data
get-image-dir get-image-run-dir get-container-dir get-container-run-dir images-by-digest get-names set-names
add-names remove-names metadata set-metadata unshare version config layer
"""

ROWS: dict[str, str] = {
    "create-layer": """
        create-layer -i {missing} -n new ; layers
        create-layer -i {missing} -n new -j base
        createlayer
        create-layer -n new
        create-layer -n new -n newer {base}
        create-layer -i {base}
        create-layer -n base
        create-layer -i {missing} no-such-parent
        create-layer -i {missing} 22222
        create-layer -i {missing} box
        create-layer -r -i {missing} top ; layer {missing}
        create-layer --name=new --id={missing} ; layer new
        create-layer -i x ; layer x
        create-layer -i {missing} -l system_u:object_r:container_file_t:s0:c1,c2 base ; layer -j {missing} ; layers -j
        create-layer -i {missing} --label nonsense ; layer -j {missing}
        create-layer -n
        create-layer -n ""
        create-layer -j -i {missing} -n <config
        """,
    "import-layer": """
        import-layer -i {missing} -n new -f {files}/top.tar base ; layer -j new ; diffsize new
        import-layer -i {missing} <base.tar
        import-layer -j -i {missing} <packed.tar.gz
        importlayer -i {missing} -n base <base.tar ; layers
        import-layer -i {missing} -f {files}/no-such-file ; layers
        ~ import-layer -i {missing} <config ; layers
        import-layer -i {missing} <null ; layer -j {missing}
        ~ import-layer -i {missing} <cut.tar ; layers
        ~ import-layer -i {missing} <cut.tar.gz ; layers
        import-layer -i {missing} no-such-parent <base.tar
        import-layer -r -i {missing} packed <base.tar
        """,
    "applydiff": """
        applydiff -f {files}/top.tar empty ; layer -j empty ; changes empty
        applydiff empty <packed.tar.gz ; diff -u -f {out}/diff empty
        apply-diff shared <base.tar ; changes shared
        applydiff no-such-layer <base.tar
        applydiff -f {files}/no-such-file empty
        ~ applydiff empty <config
        applydiff box <base.tar
        """,
    "applydiff-using-staging-dir": """
        applydiff-using-staging-dir base {files}
        applydiff-using-staging-dir no-such-layer {files}/no-such-file
        """,
    "create-image": """
        create-image -i {missing} -n new top
        create-image -i {missing} -n new -j top
        create-image -n new -n newer -n new top
        createimage -i {missing} -m words -n a -n b
        create-image -i {missing} -f {files}/config ; image -j {missing} ; metadata {missing}
        create-image -i {missing} -d sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 -j
        create-image -i {missing} -d nonsense
        create-image -i {missing} -d sha256:abc
        create-image -i {missing} -d md5:900150983cd24fb0d6963f7d28e17f72
        create-image -i {missing} -f {files}/no-such-file
        create-image -i {image}
        create-image -n image
        create-image -n new no-such-layer
        create-image -n new box
        """,
    "create-container": """
        create-container -i {missing} -n new image
        create-container -j -i {missing} -n new image
        create-container -n new -n newer -n new image
        createcontainer -i {missing} -n a -n b -m words bare ; container {missing}
        create-container -i {missing} -f {files}/config image ; metadata {missing}
        create-container -i {missing} -f {files}/no-such-file image
        create-container -i {box} image
        create-container -n box image ; containers
        create-container -n new no-such-image
        create-container -n new top
        create-container -i {missing} aaaa
        create-container -i {missing} "" ; container -j {missing}
        """,
    "delete": """
        delete plain ; containers
        delete box ; delete image ; images ; containers ; layers
        delete packed ; layers
        delete cccc ; delete empty ; layers
        delete plain ; delete bare ; images
        delete no-such-thing
        delete no-such-thing plain ; containers
        delete -j no-such-thing plain
        delete -j box ; layers
        delete shared ; layers ; images ; containers
        delete cccc ; delete 3333 ; layers
        """,
    "delete-layer": """
        delete-layer packed ; layers
        deletelayer {packed}
        delete-layer base
        delete-layer {base}
        delete-layer empty
        delete-layer top
        delete-layer no-such-layer
        delete-layer box
        delete-layer -j packed no-such-layer base
        delete-layer 5555 ; layers
        delete-layer packed packed
        """,
    "delete-image": """
        delete-image second ; images ; layers
        deleteimage {second}
        delete-image image
        delete-container box ; delete-image image ; layers
        delete-layer packed ; delete-container box ; delete-image image ; layers ; images
        delete-image -t second ; images
        delete-image -t -j second
        delete-image -j second
        delete-image -j image no-such-image
        delete-image no-such-image second
        delete-image shared
        delete-image bbbb ; images
        delete-layer packed ; delete-container box ; delete-image -j image ; layers -q
        """,
    "delete-container": """
        delete-container box ; containers ; layers
        deletecontainer {box}
        delete-container -j box no-such-container
        delete-container no-such-container plain ; containers
        delete-container image
        delete-container dddd
        delete-container shared ; containers
        """,
    "exists": """
        exists base
        exists box image base no-such-thing
        exists no-such-thing
        exists -q base
        exists -q no-such-thing
        exists -j base no-such-thing
        exists -l base
        exists -l image
        exists -l shared
        exists -i image
        exists -i box
        exists -c box
        exists -c -i image
        exists -c image
        exists -j -c image
        exists 1111 aaaa dddd
        exists -qj base
        """,
    "layers": """
        layers
        layers -j
        layers -t
        layers --tree
        layers -q
        layers --quick=false
        layers -tj
        wipe ; layers ; layers -j ; layers -t ; layers -q
        mount box ; layers -t ; layers
        create-layer -i {missing} shared ; create-image -n leaf {missing} ; layers -t
        """,
    "layer": """
        layer base
        layer base top
        layer -j base
        layer -j base no-such-layer top
        layer no-such-layer
        layer no-such-layer base
        layer -j no-such-layer
        layer box
        layer 4444
        layer shared
        layer empty
        """,
    "images": """
        images
        images -j
        images -q
        images -jq
        wipe ; images ; images -j ; images -q
        """,
    "image": """
        image image
        image -j image bare
        image bare
        image second
        image no-such-image
        image image no-such-image
        image -j no-such-image
        image -j image no-such-image
        image aaaa
        image top
        """,
    "containers": """
        containers
        containers -j
        wipe ; containers ; containers -j
        """,
    "container": """
        container box
        container plain
        container -j box plain
        container no-such-container
        container box no-such-container
        container -j box no-such-container
        container -j no-such-container
        container dddd
        container image
        create-container -i {missing} "" ; container {missing}
        """,
    "list-layer-data": """
        list-layer-data base
        list-layer-data -j base
        set-layer-data -f {files}/config base b ; set-layer-data -f {files}/config base a \
            ; list-layer-data base ; list-layer-data -j base ; layer -j base
        list-layer-data no-such-layer
        list-layer-data -j no-such-layer
        """,
    "get-layer-data": """
        set-layer-data -f {files}/config base key ; get-layer-data base key ; get-layer-data -f {out}/data base key
        get-layer-data base no-such-key
        get-layer-data no-such-layer key
        get-layer-data base ""
        get-layer-data -f {files}/no-such-dir/x base key
        get-layer-data -f {out}/data base no-such-key
        get-layer-data base
        """,
    "set-layer-data": """
        set-layer-data base key <config ; get-layer-data base key
        set-layer-data -f {files}/config base key ; set-layer-data -f {files}/manifest base key \
            ; get-layer-data base key ; layer -j base
        set-layer-data -f {files}/no-such-file base key
        set-layer-data no-such-layer key <config
        set-layer-data base "" <config
        """,
    "list-image-data": """
        list-image-data image
        list-image-data -j image
        list-image-data bare
        list-image-data -j bare
        list-image-data no-such-image
        list-image-data -j no-such-image
        """,
    "get-image-data": """
        get-image-data image manifest
        get-image-data -f {out}/data image sha256:config
        get-image-data image no-such-key
        get-image-data no-such-image key
        get-image-data image ""
        get-image-data -f {files}/no-such-dir/x image manifest
        get-image-data -f {out}/data image no-such-key
        """,
    "get-image-data-size": """
        get-image-data-size image manifest
        get-image-data-size image no-such-key
        get-image-data-size no-such-image key
        get-image-data-size image ""
        """,
    "get-image-data-digest": """
        get-image-data-digest image manifest
        get-image-data-digest image no-such-key
        get-image-data-digest no-such-image key
        get-image-data-digest image ""
        """,
    "set-image-data": """
        set-image-data bare key <config ; get-image-data bare key ; image -j bare
        set-image-data bare manifest <manifest ; image bare ; images
        set-image-data bare manifest-extra <manifest ; image bare ; image -j bare
        set-image-data image manifest <config ; image image ; image -j image
        set-image-data -f {files}/no-such-file image key
        set-image-data no-such-image key <config
        set-image-data image "" <config
        """,
    "list-container-data": """
        list-container-data box
        list-container-data -j box
        list-container-data plain
        list-container-data -j plain
        list-container-data no-such-container
        list-container-data -j no-such-container
        """,
    "get-container-data": """
        get-container-data box config
        get-container-data -f {out}/data box config
        get-container-data box no-such-key
        get-container-data no-such-container key
        get-container-data box ""
        get-container-data -f {files}/no-such-dir/x box config
        """,
    "get-container-data-size": """
        get-container-data-size box config
        get-container-data-size box no-such-key
        get-container-data-size no-such-container key
        get-container-data-size box ""
        """,
    "get-container-data-digest": """
        get-container-data-digest box config
        get-container-data-digest box no-such-key
        get-container-data-digest no-such-container key
        get-container-data-digest box ""
        """,
    "set-container-data": """
        set-container-data plain key <config ; get-container-data plain key ; container -j plain
        set-container-data box config <manifest ; container -j box
        set-container-data -f {files}/no-such-file box key
        set-container-data no-such-container key <config
        set-container-data box "" <config
        """,
    "get-image-dir": """
        get-image-dir {image}
        get-image-dir {image} ; delete second ; get-image-dir {image}
        getimagedir {bare}
        """,
    "get-image-run-dir": """
        get-image-run-dir {image}
        getimagerundir {bare}
        """,
    "get-container-dir": """
        get-container-dir box
        get-container-dir no-such-container
        getcontainerdir plain
        """,
    "get-container-run-dir": """
        get-container-run-dir box
        get-container-run-dir no-such-container
        getcontainerrundir plain
        """,
    "images-by-digest": """
        images-by-digest sha256:6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770
        images-by-digest -q sha256:6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770
        images-by-digest -j sha256:6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770
        images-by-digest -j sha256:7980c3ac918d9f390c0782c33d80707bca83fd737648266a7ddf1e59d77c5617
        images-by-digest sha256:7980c3ac918d9f390c0782c33d80707bca83fd737648266a7ddf1e59d77c5617
        images-by-digest nonsense
        images-by-digest sha256:abc
        images-by-digest md5:900150983cd24fb0d6963f7d28e17f72
        images-by-digest ""
        """,
    "get-names": """
        get-names top
        get-names -j top
        get-names image
        get-names shared
        get-names no-such-thing
        get-names -j no-such-thing
        getnames box
        create-layer -i {missing} ; get-names {missing} ; get-names -j {missing}
        """,
    "set-names": """
        set-names -n a -n b -n a top ; layer top ; layers
        set-names top ; layer top ; layer {top}
        set-names -j -n a image ; image -j {image}
        set-names -j top
        setnames -n base top ; layers
        set-names -n a no-such-thing
        set-names -j -n a no-such-thing
        set-names -n bare image ; images -j
        set-names -n new 2222
        set-names -n new shared
        """,
    "add-names": """
        add-names -n a -n b top ; layer top
        add-names -j -n a image ; image -j {image}
        add-names top
        add-names -j top
        addnames -n base top ; layers
        add-names -n top top ; layer top
        add-names -n a no-such-thing
        add-names -j -n a no-such-thing
        add-names -n box plain ; containers
        """,
    "remove-names": """
        remove-names -n top top ; layer {top}
        remove-names -j -n image image ; image -j {image}
        remove-names -j -n top -n other-top top
        remove-names -n no-such-name top ; layer top
        remove-names top
        removenames -n top top
        remove-names -n a no-such-thing
        remove-names -j -n a no-such-thing
        """,
    "metadata": """
        metadata image
        metadata image base
        metadata -q image
        metadata -j image
        metadata -j image base no-such-thing
        metadata no-such-thing
        metadata -j no-such-thing
        metadata -q no-such-thing image
        """,
    "set-metadata": """
        set-metadata -m new base ; metadata base ; layer -j base
        set-metadata -f {files}/config image ; metadata image
        set-metadata base
        set-metadata -m "" image ; metadata image
        set-metadata -f {files}/no-such-file base
        set-metadata -m new no-such-thing
        set-metadata -m a -f {files}/config image ; metadata image
        set-metadata -m new box ; container -j box
        """,
    "mount": """
        mount box ; mounted box ; unmount box ; mounted box
        mount {base}
        mount -j box
        mount no-such-thing
        mount -j no-such-thing
        mount box no-such-thing {base}
        mount -j box no-such-thing
        mount {box} ; mount box ; unmount box ; mounted box ; unmount box ; mounted box
        mount image
        mount -o nodev box
        mount dddd
        mount shared
        mount -r image ; mounted {top} ; layers -t ; mount -r {image} ; unmount image ; unmount {image} ; mounted {top}
        mount --ro -j image
        mount --read-only image no-such-image {second}
        mount -r -j no-such-image
        mount -r {top}
        mount -r box
        mount -r bare
        mount -r -o nodev aaaa
        mount -r image ; mount {top} ; unmount {top} ; unmount -f image ; mounted {top}
        mount -r image ; shutdown ; shutdown -f ; mounted {top}
        """,
    "unmount": """
        mount box ; unmount box
        mount box ; mount box ; unmount -f box ; mounted box
        mount box ; umount -j box
        unmount box
        unmount -j box
        unmount image
        unmount bare
        mount -r image ; unmount -j image bare
        unmount no-such-thing
        unmount -j no-such-thing
        mount {base} ; mount {top} ; unmount base top no-such-thing
        mount box ; mount box ; unmount -j box
        """,
    "mounted": """
        mounted box
        mounted -j box
        mount box ; mounted box ; mounted -j box base
        mounted no-such-thing
        mounted -j no-such-thing
        mounted box no-such-thing
        mounted image
        """,
    "layer-parent-owners": """
        layer-parent-owners base
        layer-parent-owners -j base
        layer-parent-owners base no-such-layer top
        layer-parent-owners -j base no-such-layer
        layer-parent-owners box
        mount {base} ; layer-parent-owners {base} ; layer-parent-owners -j base
        layerparentowners 1111
        """,
    "container-parent-owners": """
        container-parent-owners box
        container-parent-owners -j box plain
        container-parent-owners no-such-container box
        container-parent-owners -j no-such-container box
        container-parent-owners base
        mount box ; container-parent-owners box
        containerparentowners dddd
        """,
    "storage-layers": """
        storage-layers
        storage-layers -j
        create-storage-layer -i {missing} ; storage-layers ; layers
        storagelayers
        """,
    "create-storage-layer": """
        create-storage-layer
        create-storage-layer -j
        create-storage-layer -i {missing} {base} ; storage-layers ; create-storage-layer -j -i x {missing}
        createstoragelayer -r -i {missing} {base}
        create-storage-layer -l "" -i {missing}
        create-storage-layer base
        create-storage-layer {missing}
        create-storage-layer -i {missing} ; wipe ; storage-layers
        """,
    "changes": """
        changes base
        changes top
        changes -j top
        changes top base
        changes packed base
        changes base top
        changes empty
        changes -j empty
        changes shared
        changes no-such-layer
        changes -j no-such-layer
        changes top no-such-layer
        changes base no-such-layer
        changes box
        changes 2222 1111
        """,
    "diff": """
        diff -u base
        diff base
        diff -u top
        diff -u -f {out}/diff packed
        diff -f {out}/diff packed
        diff -c -f {out}/diff top
        diff -b top
        diff -x top
        diff -cu -f {out}/diff packed
        diff -u packed base
        diff -u empty
        diff -u shared
        diff -u top shared
        diff -u no-such-layer
        diff -u box
        diff -f {files}/no-such-dir/x top
        diff -u -f {out}/diff no-such-layer
        diff -u top no-such-layer
        diff -u base no-such-layer
        """,
    "diffsize": """
        diffsize base
        diffsize top
        diff-size packed
        diffsize packed base
        diffsize empty
        diffsize shared
        diffsize no-such-layer
        diffsize top no-such-layer
        diffsize base no-such-layer
        diffsize box
        """,
    "copy": """
        copy {files}/config base:/new ; copy base:/new {out}/new ; changes base
        copy {files}/config base:/etc/passwd ; copy base:/etc/passwd {out}/passwd
        copy {files}/config base:/a/b/c ; changes base
        copy {files}/config base:/new/ ; copy base:new/ {out}/new
        copy {files}/config {files}/manifest base:/new ; copy base:/new {out}/new
        copy {files} base:/new ; changes base
        copy {files} base:/a/b ; changes base
        copy {files}/. base:etc ; changes base
        copy base:/etc shared:/ ; changes shared ; diff -u shared
        copy top:/ shared:/ ; diff -u shared
        copy base: shared: ; changes shared
        copy base:/etc base:/bin ; changes base
        copy base:/bin/sh top:/bin/ash ; changes top
        copy base:/bin/ash shared:/ash ; changes shared
        copy -o 7:8 base:/etc shared:/ ; diff -u -f {out}/diff shared
        copy --chown 7 {files}/config shared:/x ; copy -j shared:/x {out}/x
        copy {files}/config base:/
        copy {files}/config base:/etc
        copy {files} base:/etc/passwd
        copy {files}/config base:/etc/passwd/x
        copy {files}/no-such-file base:/x
        copy base:/no-such-file {out}/x
        copy {files}/config {files}/no-such-file {files}/manifest base:/x ; copy base:/x {out}/x
        copy {files}/config no-such-layer:/x
        copy no-such-layer:/x base:/x
        copy {files}/config box:/x
        copy {files}/config {out}/x
        copy base:/bin/ash {out}/x
        copy -o root {files}/config base:/x
        copy -o 1:x {files}/config base:/x
        copy -o 4294967296 {files}/config base:/x
        copy -o 1:2:3 {files}/config base:/x
        copy -o :9 {files}/config base:/x
        copy {files}/config base:/x ; mounted base
        copy {files}/config base:/ ; mounted base
        """,
    # Go's program, run by root without subordinate IDs, calls itself until its environment is full.
    "unshare": """
        unshare --help
        unshare --no-such-flag
        unshare -Z
        """,
    "status": """
        status
        status -j
        status
        """,
    "version": """
        version
        version -j
        """,
    "config": """
        config
        config {files}/base.tar
        config no-such-file
        config -s {driver}
        config -j
        """,
    "wipe": """
        wipe ; layers ; images ; containers
        wipe -j
        mount box ; wipe ; layers
        """,
    "check": """
        check
        check -j
        check -q
        check -r ; layers -j ; images -j ; containers -j
        check -f -j ; layers -j ; images -j ; containers -j
        check -m 1h30m
        check -m 0
        check -m ""
        check -m 1.5h -j
        check -m +1ns
        check -m=-5h
        check -m -5h
        check -q -m 1ns
        check -m zzz
        check -m 5
        check -m 5x
        check -m 1..5h
        check -m -
        check -m h
        check -m 1h.h
        check -m 1hh
        wipe ; check
        """,
    "dedup": """
        dedup
        dedup -j
        dedup --hash-method size
        dedup --hash-method=sha256 -j
        dedup --hash-method md5
        dedup -j --hash-method ""
        """,
    "gc": """
        gc
        gc -j
        gc ; layers -j ; images -j ; containers -j ; diff -u -f {out}/diff packed
        wipe ; gc
        gc x
        """,
    "shutdown": """
        shutdown
        shutdown -j
        mount box ; shutdown ; mounted box
        mount box ; shutdown -j
        mount box ; shutdown -f ; mounted box
        mount box ; shutdown -f -j
        """,
}
