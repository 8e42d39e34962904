"""From words to an exit status: flags, the table, the store, and the one place where errors become lines.

Exit status: 0 if all went well; 1 for a failure, too few or too many arguments, or an unknown command; 125 for a flag
that is not known behind a command, and for `COMMAND --help`; 130 when interrupted. When nobody reads the output, the
process ends by SIGPIPE (a shell says 141), after mounts and locks have been given back.

Global flags may stand before the command and behind it. Those before it turn the configuration file off, those behind
it change single settings, as in Go's program. Called `containers-storage`, the command has that one's commands alone.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings

from layerhold.cli.flags import FlagError, Given, HelpWanted, parse, parse_anywhere
from layerhold.cli.output import complain, described, line, program
from layerhold.cli.table import COMMANDS, GLOBAL, HELP, OWN, by_name
from layerhold.errors import StorageError, quoted
from layerhold.values import TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from layerhold.cli.flags import Flag
    from layerhold.cli.table import Command
    from layerhold.config import Config
    from layerhold.store import Store

T = TypeVar("T")
OK, FAILED, BAD_FLAG, INTERRUPTED, NOBODY_READS = 0, 1, 125, 130, 141

_MANY = 20_000  # new objects between two looks for circles: what start-up makes are none
# A store that lives as long as the process: to take apart what it knows of 10,000 layers is a fortieth of the time.
_kept: list[Store] = []


class _End(Exception):
    """The way out of the middle, with the exit status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


def run() -> NoReturn:
    """Run the command of this process and end it: the entry point of `layerhold`."""
    gc.set_threshold(_MANY)
    warnings.showwarning = lambda message, *_where: complain(str(message))
    try:
        status = main(sys.argv[1:], own_process=True)
        sys.stdout.flush()
    except BrokenPipeError:
        _die_of_the_pipe()
        status = NOBODY_READS
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.stderr.flush()
    os._exit(status)  # a tenth of a short command's time would go into taking the interpreter apart


def _die_of_the_pipe() -> None:
    """End as a program does that nobody listens to any more; mounts and locks have been given back by now."""
    import signal

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python would still write at its end goes nowhere
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


def main(words: Sequence[str], *, own_process: bool = False) -> int:
    """Run one command line (without the program's name) and return its exit status.

    Only in a process of its own it may go into a user namespace.
    """
    try:
        given = Given()
        rest = _global_flags(words, given)
        if not rest:
            _usage(complain)
            return FAILED
        command = by_name(_commands()).get(rest[0])
        if command is None:
            line(f"{rest[0]}: unrecognized command.")
            _advise(_command_meant(rest[0]))
            return FAILED
        if own_process and (command.opens_store or command.in_namespace):
            _go_into_namespace(command, rest, given)
        return _run_command(command, rest, given, own_process=own_process)
    except _End as end:
        return end.status


def _run_command(command: Command, words: Sequence[str], given: Given, *, own_process: bool) -> int:
    if not command.opens_store:
        arguments = _command_flags(command, words, given)
        return _reported(given, lambda: _code(command)(arguments, given))
    config = None if any(given.all(key) for key in _SETTINGS) else _initialized(_configuration)
    if config is not None:
        given = _with_settings(given, config)
    arguments = _command_flags(command, words, given)
    store = _initialized(lambda: _open(given, config))
    if own_process:
        _kept.append(store)
    return _reported(given, lambda: _code(command)(store, arguments, given))


def _go_into_namespace(command: Command, words: Sequence[str], given: Given) -> None:
    """Become root of a user namespace where that is asked for, or is the custom: see cli/namespace.py."""
    asked = given.copy()
    try:
        _parsed(command, words, asked)
    except (FlagError, HelpWanted):
        return  # that is all that this command line will say
    if asked.yes("unshare") or ("unshare" not in asked and os.geteuid() != 0):
        from layerhold.cli import namespace

        _initialized(lambda: namespace.enter(asked="unshare" in asked))


def _reported(given: Given, action: Callable[[], int]) -> int:
    """Do it; an error becomes a line and a status."""
    try:
        return action()
    except BrokenPipeError:
        raise
    except (StorageError, OSError) as error:
        if given.yes("debug"):
            import traceback

            traceback.print_exc()
        complain(described(error))
        _hint(error)
        return FAILED


def _code(command: Command) -> Callable[..., int]:
    from importlib import import_module

    module, _, function = command.code.partition(":")
    return getattr(import_module(f"layerhold.cli.{module}"), function)  # type: ignore[no-any-return]


def _hint(error: BaseException) -> None:
    """Say what would help, or at least which word was not known if the sentence does not have it."""
    ref = getattr(error, "ref", "")
    unknown = f"nothing there is called {quoted(ref)}" if ref and ref not in described(error) else ""
    _advise(getattr(error, "hint", "") or unknown)


def _advise(hint: str) -> None:
    """Print a hint; Go's program has nothing of the kind."""
    if hint and program() != "containers-storage":
        complain(f"hint: {hint}")


# -- the store

_SETTINGS = ("graph", "run", "storage-driver", "storage-opt")


def _configuration() -> Config:
    from layerhold.config import Config

    return Config.load()


def _with_settings(given: Given, config: Config) -> Given:
    """Add the settings of the configuration to the flags, as what they are if nothing else is said."""
    settings = {
        "graph": [config.graphroot],
        "run": [config.runroot],
        "storage-driver": [config.driver],
        "storage-opt": config.driver_options_shown,
        "image-store": [config.imagestore],
        "transient-store": ["true"] if config.transient_store else [],
    }
    return Given({**settings, "debug": given.all("debug"), "unshare": given.all("unshare")})


def _open(given: Given, config: Config | None) -> Store:
    from layerhold.config import Config
    from layerhold.store import Store

    if config is None:
        config = Config.load(
            graphroot=given.get("graph") or None,
            runroot=given.get("run") or None,
            driver=given.get("storage-driver") or None,
            options=given.all("storage-opt") or None,
        )
    else:
        roots = config.replace(graphroot=os.path.abspath(given.get("graph")), runroot=os.path.abspath(given.get("run")))
        more = given.all("storage-opt")[len(config.driver_options_shown) :]
        config = roots.with_driver(given.get("storage-driver"), more)
    for note in config.notes:
        complain(note)
    imagestore = given.get("image-store")
    return Store.open(
        config.replace(
            imagestore=os.path.abspath(imagestore) if imagestore else "",
            transient_store=given.yes("transient-store"),
        )
    )


def _initialized(make: Callable[[], T]) -> T:
    try:
        return make()
    except (StorageError, OSError) as error:
        line(f"error initializing: {described(error)}")
        _hint(error)
        raise _End(FAILED) from None


# -- flags and help


def _global_flags(words: Sequence[str], given: Given) -> list[str]:
    try:
        rest = parse(words, (*GLOBAL, HELP), given)
    except HelpWanted:
        _usage(complain)
        _refuse("flag: help requested")
    except FlagError as error:
        _explain(error, program())
        _refuse(str(error))
    if given.yes("help"):
        _usage(line)
        raise _End(OK)
    return rest


def _refuse(reason: str) -> NoReturn:
    line(f"{reason} while parsing arguments (1)")
    _usage(complain)
    raise _End(FAILED)


def _command_flags(command: Command, words: Sequence[str], given: Given) -> list[str]:
    name, before = words[0], given.copy()
    try:
        arguments = _parsed(command, words, given)
    except HelpWanted:
        _command_usage(command, name, before)
        raise _End(BAD_FLAG) from None
    except FlagError as error:
        _explain(error, f"{program()} {name}")
        raise _End(BAD_FLAG) from None
    if len(arguments) < command.least:
        line(f"{name}: more arguments required.")
    elif command.most is not None and len(arguments) > command.most:
        line(f"{name}: too many arguments ([{' '.join(arguments)}]).")
        if any(word.startswith("-") for word in arguments):
            _advise("flags stand before the arguments")
    else:
        return arguments
    _command_usage(command, name, before)
    raise _End(FAILED)


def _parsed(command: Command, words: Sequence[str], given: Given) -> list[str]:
    read = parse_anywhere if command.flags_anywhere else parse
    return read(words[1:], _flags(command), given)


def _explain(error: FlagError, where: str) -> None:
    for complaint in error.complaints:
        complain(f"{complaint}\nSee '{where} --help'.")


def _commands() -> Sequence[Command]:
    """The commands that there are under this name."""
    return COMMANDS if program() == "containers-storage" else (*COMMANDS, *OWN)


def _command_meant(word: str) -> str:
    """Say which command is like a word that is none."""
    from difflib import get_close_matches

    near = get_close_matches(word, by_name(_commands()), n=1)
    return f"is {near[0]} meant?" if near else f"{program()} --help lists the commands"


def _usage(write: Callable[[str], None]) -> None:
    line(f"Usage: {program()} command [options [...]]\n\nCommands:\n")
    for command in _commands():
        line(f"  {command.names[0]:30}{command.help}")
    line("\nOptions:")
    _list_flags((*GLOBAL, HELP), Given(), write)


def _command_usage(command: Command, name: str, given: Given) -> None:
    from layerhold.cli.descriptions import description

    options = "[options [...]] " if command.flags else ""
    line(f"Usage: {program()} {name} {options}{command.arguments}".rstrip() + f"\n\n{command.help}")
    if about := description(command.names[0]):
        line(f"\n{about}")
    if flags := _flags(command):
        line("\nOptions:")
        _list_flags(flags, given, complain)


def _flags(command: Command) -> tuple[Flag, ...]:
    """The flags that may stand behind a command."""
    shared = program() == "containers-storage"
    flags = tuple(flag for flag in command.flags if not (shared and flag.own))
    return (*flags, *GLOBAL) if command.global_flags else flags


def _list_flags(flags: Sequence[Flag], given: Given, write: Callable[[str], None]) -> None:
    """List flags with the values that they have without being given."""
    rows = [(f"  {flag.spelled}{_default(flag, given)}", flag.help) for flag in sorted(flags, key=_by_first_name)]
    width = max(20, *(len(left) + 3 for left, _ in rows))
    write("\n" + "\n".join(f"{left:{width}} {right}" for left, right in rows))


def _by_first_name(flag: Flag) -> str:
    return flag.names[0]


def _default(flag: Flag, given: Given) -> str:
    if flag.repeated:
        return f"=[{' '.join(given.all(flag.names[0]))}]"
    if flag.yes_or_no:
        by_itself = flag.names[0] == "unshare" and "unshare" not in given and os.geteuid() != 0
        return "=true" if by_itself or given.yes(flag.names[0]) else ""
    value = given.get(flag.names[0], flag.default)
    home = os.environ.get("HOME", "").rstrip("/")
    if home and value.startswith(home):
        value = "~" + value[len(home) :]
    return f"={value}" if value else ""
