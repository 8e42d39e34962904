"""All commands: their words, how many arguments they take, their flags, and where the code is.

The table is all that start-up reads; the module of a command is imported when the command is run. Help, the manual
(manual.py) and what the shell completes (completion.py) are made from it; descriptions.py has the longer texts.
"""

from __future__ import annotations

from layerhold.cli.flags import Flag
from layerhold.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Command(Value):
    """One command. `most` is the greatest number of arguments, None: any. `code` is `module:function` below cli.

    The function is called with the store, the arguments and the flags; without the first if it `opens_store` not. With
    a store, or `in_namespace`, it runs in a user namespace where that is the custom. The flags of all commands may
    stand behind it if it has `global_flags`; behind its arguments, too, if `flags_anywhere`.
    """

    names: tuple[str, ...]
    arguments: str
    help: str
    code: str
    flags: tuple[Flag, ...] = ()
    least: int = 0
    most: int | None = None
    opens_store: bool = True
    in_namespace: bool = False
    global_flags: bool = True
    flags_anywhere: bool = False


def _yes(*names: str, help: str) -> Flag:  # noqa: A002 - as the field is called
    return Flag(names=names, help=help, yes_or_no=True)


GLOBAL = (
    _yes("debug", "D", help="Say more when something goes wrong"),
    Flag(names=("graph", "g"), help="Where the store is", value="DIRECTORY"),
    Flag(names=("image-store",), help="Where images are, if not where the store is", value="DIRECTORY"),
    Flag(names=("run", "R"), help="Where the store keeps what need not outlive a reboot", value="DIRECTORY"),
    Flag(names=("storage-driver", "s"), help="The storage driver ($STORAGE_DRIVER)", value="DRIVER"),
    Flag(names=("storage-opt",), help="An option of the storage driver ($STORAGE_OPTS)", repeated=True, value="OPTION"),
    _yes("transient-store", help="Keep containers where they do not outlive a reboot"),
    _yes("unshare", "U", help="Run in a user namespace (ordinary users do, if they have IDs for it)"),
)

HELP = _yes("help", help="Print this")

_JSON = _yes("json", "j", help="Print JSON")
_FILE_IN = Flag(names=("file", "f"), help="Read from this file, not from standard input", value="FILE")
_FILE_OUT = Flag(names=("file", "f"), help="Write to this file, not to standard output", value="FILE")
_NAME = Flag(names=("name", "n"), help="A name", repeated=True, value="NAME")
_ID = Flag(names=("id", "i"), help="The ID (64 random hex digits if not given)", value="ID")
_QUIET = _yes("quiet", "q", help="Print less")
_DRY_RUN = _yes("dry-run", help="Only say what would go").replace(own=True)
_METADATA = (
    Flag(names=("metadata", "m"), help="A text to attach"),
    Flag(names=("metadata-file", "f"), help="A file with a text to attach", value="FILE"),
)
_LAYER = (
    _ID,
    _JSON,
    Flag(names=("label", "l"), help="The SELinux label of its mounts", value="LABEL"),
    _NAME,
    _yes("readonly", "r", help="Not meant to be written to"),
)


# Of these the Go program has no name without dashes.
_DASHED = frozenset(
    {
        "applydiff-using-staging-dir",
        "container-parent-owners",
        "create-storage-layer",
        "images-by-digest",
        "layer-parent-owners",
        "storage-layers",
    }
)


_MAPS = (
    Flag(names=("gidmap",), help="Groups of its own: CONTAINER:HOST:SIZE, several with commas", value="MAP"),
    _yes("hostgidmap", help="The groups of the host"),
    _yes("hostuidmap", help="The users of the host"),
    Flag(names=("subgidmap",), help="The groups that /etc/subgid gives this name", value="GROUP"),
    Flag(names=("subuidmap",), help="The users that /etc/subuid gives this name", value="USER"),
    Flag(names=("uidmap",), help="Users of its own: CONTAINER:HOST:SIZE, several with commas", value="MAP"),
)


def _command(
    names: str, arguments: str, counts: tuple[int, int | None], about: str, code: str, *flags: Flag
) -> Command:
    words = names.split()
    every = dict.fromkeys((*words, *(word.replace("-", "") for word in words if word not in _DASHED)))
    return Command(
        names=tuple(every), arguments=arguments, help=about, code=code, flags=flags, least=counts[0], most=counts[1]
    )


_ANY, _NONE, _ONE, _SOME = (0, None), (0, 0), (1, 1), (1, None)

COMMANDS = (
    _command("create-layer", "[PARENT]", (0, 1), "Make an empty layer", "create:create_layer", *_LAYER, *_MAPS),
    _command(
        "import-layer", "[PARENT]", (0, 1), "Make a layer from a tar stream", "create:import_layer",
        *_LAYER, *_MAPS, _FILE_IN,
    ),
    _command(
        "create-image", "[TOP-LAYER]", (0, 1), "Make an image", "create:create_image",
        Flag(names=("digest", "d"), help="The digest of its manifest", value="DIGEST"), _ID, _JSON, *_METADATA, _NAME,
    ),
    _command(
        "create-container", "IMAGE", _ONE, "Make a container and its layer", "create:create_container",
        _ID, _JSON, *_METADATA, _NAME, *_MAPS,
        _yes("volatile", help="Need not outlive a crash of the machine: faster"),
    ),
    _command(
        "layers", "", _NONE, "List the layers", "show:layers", _JSON,
        _yes("quick", "q", help="Print IDs only"), _yes("tree", "t", help="Draw them as a tree"),
    ),
    _command("layer", "LAYER...", _SOME, "Show layers", "show:layer", _JSON),
    _command("images", "", _NONE, "List the images", "show:images", _JSON, _QUIET),
    _command("images-by-digest", "DIGEST", _ONE, "List the images with a digest", "show:by_digest", _JSON, _QUIET),
    _command("image", "IMAGE...", _SOME, "Show images", "show:image", _JSON),
    _command("containers", "", _NONE, "List the containers", "show:containers", _JSON),
    _command("container", "CONTAINER...", _SOME, "Show containers", "show:container", _JSON),
    _command(
        "exists", "THING...", _SOME, "Tell whether layers, images or containers exist", "things:exists",
        _yes("container", "c", help="Only a container will do"), _yes("image", "i", help="Only an image will do"),
        _JSON, _yes("layer", "l", help="Only a layer will do"), _QUIET,
    ),
    _command("get-names", "THING", _ONE, "Print the names of something", "things:get_names", _JSON),
    _command("set-names", "THING", _SOME, "Give something just these names", "things:set_names", _JSON, _NAME),
    _command("add-names", "THING", _SOME, "Give something more names", "things:add_names", _JSON, _NAME),
    _command(
        "remove-names", "THING", _SOME, "Take names away from something", "things:remove_names", _JSON, _NAME
    ),
    _command("metadata", "THING...", _SOME, "Print the text attached to things", "things:metadata", _JSON, _QUIET),
    _command("set-metadata", "THING", _ONE, "Attach a text", "things:set_metadata", *_METADATA),
    _command("delete", "THING...", _SOME, "Remove what nobody needs", "things:delete", _JSON),
    _command("delete-layer", "LAYER...", _SOME, "Remove layers", "things:delete_layer", _JSON),
    _command(
        "delete-image", "IMAGE...", _SOME, "Remove images, and layers that only they need",
        "things:delete_image", _JSON, _yes("test", "t", help="Only say what would go"),
    ),
    _command(
        "delete-container", "CONTAINER...", _SOME, "Remove containers and their layers",
        "things:delete_container", _JSON,
    ),
    _command(
        "mount", "LAYER-OR-CONTAINER...", _SOME, "Mount layers or containers", "mounting:mount", _JSON,
        Flag(names=("label", "l"), help="The SELinux label", value="LABEL"),
        Flag(names=("opt", "o"), help="Mount options (not used)", value="OPTIONS"),
        _yes("read-only", "ro", "r", help="Mount images, so that nobody can write to them"),
    ),
    _command(
        "unmount umount", "LAYER-OR-CONTAINER...", _SOME, "Unmount layers or containers", "mounting:unmount",
        _yes("force", "f", help="However often it was mounted"), _JSON,
    ),
    _command("mounted", "LAYER-OR-CONTAINER...", _SOME, "Say which are mounted", "mounting:mounted", _JSON),
    _command(
        "layer-parent-owners", "LAYER...", _SOME, "Say who owns directories above mounts, and is in no ID map",
        "mounting:layer_parent_owners", _JSON,
    ),
    _command(
        "container-parent-owners", "CONTAINER...", _SOME, "Say the same of containers",
        "mounting:container_parent_owners", _JSON,
    ),
    _command("storage-layers", "", _NONE, "List the layers that the driver has", "drivers:layers", _JSON),
    _command(
        "create-storage-layer", "[PARENT]", (0, 1), "Make a layer that only the driver knows", "drivers:create",
        *(flag for flag in _LAYER if flag is not _NAME), *_MAPS,
    ),
    _command("changes", "LAYER [OTHER]", (1, 2), "Say what a layer changes", "diffs:changes", _JSON),
    _command(
        "diff", "LAYER [OTHER]", (1, 2), "Write a layer as a tar stream", "diffs:diff",
        _yes("bzip2", "bz2", "b", help="Compress with bzip2 (refused: nothing can write it)"), _FILE_OUT,
        _yes("gzip", "c", help="Compress with gzip"), _yes("uncompressed", "u", help="Do not compress"),
        _yes("xz", "x", help="Compress with xz (refused: nothing can write it)"),
    ),
    _command(
        "copy", "[LAYER:]PATH... [LAYER:]PATH", (2, None), "Copy files into a layer, or out of one", "copying:copy",
        Flag(names=("chown", "o"), help="Who is to own the copies, in numbers", value="UID[:GID]"), _JSON,
    ),
    _command("diffsize diff-size", "LAYER [OTHER]", (1, 2), "Count the bytes of what differs", "diffs:diffsize"),
    _command(
        "applydiff-using-staging-dir", "LAYER DIRECTORY", (2, 2), "Fill a layer by parts (refused: not offered)",
        "diffs:applydiff_using_staging_dir",
    ),
    _command("applydiff apply-diff", "LAYER", _ONE, "Unpack a tar stream over a layer", "diffs:applydiff", _FILE_IN),
    *(
        command
        for a, kind in (("a", "layer"), ("an", "image"), ("a", "container"))
        for command in (
            _command(
                f"list-{kind}-data", kind.upper(), _ONE, f"List the big data of {a} {kind}", f"data:list_{kind}", _JSON
            ),
            _command(
                f"get-{kind}-data", f"{kind.upper()} KEY", (2, 2), f"Print big data of {a} {kind}", f"data:get_{kind}",
                _FILE_OUT,
            ),
            _command(
                f"set-{kind}-data", f"{kind.upper()} KEY", (2, 2), f"Store big data of {a} {kind}", f"data:set_{kind}",
                _FILE_IN,
            ),
        )
    ),
    *(
        _command(
            f"get-{kind}-data-{what}", f"{kind.upper()} KEY", (2, 2), f"Print the {what} of big data",
            f"data:{what}_{kind}",
        )
        for kind in ("image", "container")
        for what in ("size", "digest")
    ),
    _command("get-image-dir", "IMAGE", _ONE, "Print an image's directory", "data:directory_image"),
    _command(
        "get-image-run-dir", "IMAGE", _ONE, "Print an image's directory for files of this boot",
        "data:run_directory_image",
    ),
    _command("get-container-dir", "CONTAINER", _ONE, "Print a container's directory", "data:directory_container"),
    _command(
        "get-container-run-dir", "CONTAINER", _ONE, "Print a container's directory for files of this boot",
        "data:run_directory_container",
    ),
    _command("status", "", _NONE, "Say where the store is, and what its driver can do", "store:status", _JSON),
    _command("version", "", _NONE, "Print the version", "store:version", _JSON),
    _command(
        "config", "[FILE]", (0, 1), "Print the settings as JSON", "config:config",
        _yes("explain", help="Say where each setting comes from (of FILE, if one is given)").replace(own=True),
    ).replace(opens_store=False),
    _command("wipe", "", _NONE, "Remove everything", "store:wipe", _JSON),
    _command(
        "check", "", _NONE, "Look for damage", "upkeep:check",
        _DRY_RUN, _yes("force", "f", help="Remove damaged containers, too"), _JSON,
        Flag(names=("max", "m"), help="How long nothing may need a layer", value="DURATION", default="24h"),
        _yes("quick", "q", help="Do not compare the files' owners, modes and times"),
        _yes("repair", "r", help="Remove damaged images and layers"),
    ),
    _command(
        "dedup", "", _NONE, "Let equal files share their blocks on disk", "upkeep:dedup",
        Flag(names=("hash-method",), help="What chooses the files: crc, size, sha256", default="crc"), _JSON,
    ),
    _command(
        "unshare", "[COMMAND...]", _ANY, "Run a command in a user namespace", "namespace:unshare"
    ).replace(opens_store=False),
    _command("gc", "", _NONE, "Remove files that no record has", "upkeep:gc", _DRY_RUN, _JSON),
    _command(
        "shutdown", "", _NONE, "Undo what was set up for the driver", "store:shutdown",
        _yes("force", "f", help="Unmount what is mounted first"), _JSON,
    ),
)  # fmt: skip


# Commands of ours alone, which Go's program does not have: not there when the command is called by that one's name.
OWN = (
    _command(
        "drivers", "", _NONE, "Say which drivers can be used here, and what they can do", "drivers:survey", _JSON
    ).replace(opens_store=False),
    _command(
        "completion", "bash|zsh|fish", _ONE, "Print what a shell needs to complete our words", "completion:command"
    ).replace(opens_store=False, global_flags=False),
    _command(
        "convert", "STORE", _ONE, "Make a store of another driver of one that is there", "convert:convert",
        _DRY_RUN.replace(help="Only say what there is to be converted"),
        Flag(names=("into",), help="Where the new store goes, if not to STORE-DRIVER", value="DIRECTORY"), _JSON,
        Flag(names=("to",), help="The driver of the new store", value="DRIVER"),
    ).replace(opens_store=False, in_namespace=True, flags_anywhere=True),
    _command(
        "manual", "DIRECTORY", _ONE, "Write the manual pages into a directory", "manual:command"
    ).replace(opens_store=False, global_flags=False),
)  # fmt: skip


def by_name(commands: Sequence[Command] = COMMANDS) -> Mapping[str, Command]:
    """Give commands by each of their names."""
    return {name: command for command in commands for name in command.names}
