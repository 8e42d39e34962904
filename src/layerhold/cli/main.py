"""From words to an exit status: flags, the table, the store, and the one place where errors become lines.

Exit status: 0 if all went well; 1 for a failure, too few or too many arguments, or an unknown command; 125 for a flag
that is not known behind a command, and for `COMMAND --help`.
"""

from __future__ import annotations

import os
import sys

from layerhold.cli.flags import FlagError, Given, HelpWanted, parse
from layerhold.cli.output import complain, described, line
from layerhold.cli.table import COMMANDS, GLOBAL, by_name
from layerhold.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerhold.cli.flags import Flag
    from layerhold.cli.table import Command
    from layerhold.store import Store

BAD_FLAG = 125


def run() -> None:
    """Run the command of this process and end it: the entry point of `layerhold`."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has had enough. What Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def main(words: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit status."""
    given = Given()
    try:
        rest = parse(words, GLOBAL, given)
    except HelpWanted:
        _usage()
        return 0
    except FlagError as error:
        complain(f"{error}\nSee '{_program()} --help'.")
        _usage()
        return 1
    if not rest:
        _usage()
        return 1
    command = by_name().get(rest[0])
    if command is None:
        line(f"{rest[0]}: unrecognized command.")
        return 1
    return _run_command(command, rest, given)


def _run_command(command: Command, words: Sequence[str], given: Given) -> int:
    name = words[0]
    try:
        arguments = parse(words[1:], (*command.flags, *GLOBAL), given)
    except HelpWanted:
        _command_usage(command)
        return BAD_FLAG
    except FlagError as error:
        complain(f"{error}\nSee '{_program()} {name} --help'.")
        return BAD_FLAG
    problem = _miscounted(command, arguments)
    if problem:
        line(f"{name}: {problem}")
        _command_usage(command)
        return 1
    try:
        store = _open(given)
    except (StorageError, OSError) as error:
        line(f"error initializing: {described(error)}")
        _hint(error)
        return 1
    try:
        return _code(command)(store, arguments, given)  # type: ignore[no-any-return, operator]
    except (StorageError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        complain(described(error))
        _hint(error)
        if given.yes("debug"):
            raise
        return 1


def _miscounted(command: Command, arguments: Sequence[str]) -> str:
    if len(arguments) < command.least:
        return "more arguments required."
    if command.most is not None and len(arguments) > command.most:
        return f"too many arguments ([{' '.join(arguments)}])."
    return ""


def _open(given: Given) -> Store:
    from layerhold.config import Config
    from layerhold.store import Store

    config = Config.load(
        graphroot=given.get("graph") or None,
        runroot=given.get("run") or None,
        driver=given.get("storage-driver") or None,
        options=given.all("storage-opt") or None,
    )
    for note in config.notes:
        complain(note)
    return Store.open(config)


def _code(command: Command) -> object:
    from importlib import import_module

    module, _, function = command.code.partition(":")
    return getattr(import_module(f"layerhold.cli.{module}"), function)


def _hint(error: BaseException) -> None:
    hint = getattr(error, "hint", "")
    if hint:
        complain(f"hint: {hint}")


def _program() -> str:
    return sys.argv[0]


def _usage() -> None:
    line(f"Usage: {os.path.basename(_program())} command [options [...]]\n\nCommands:\n")
    width = max(len(command.names[0]) for command in COMMANDS) + 2
    for command in COMMANDS:
        line(f"  {command.names[0]:{width}}{command.help}")
    line("\nOptions:")
    _list_flags(GLOBAL)


def _command_usage(command: Command) -> None:
    line(f"Usage: {os.path.basename(_program())} {command.names[0]} [options [...]] {command.arguments}".rstrip())
    line(f"\n{command.help}\n\nOptions:")
    _list_flags((*command.flags, *GLOBAL))


def _list_flags(flags: Sequence[Flag]) -> None:
    spelled = {
        ", ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in flag.names): flag.help for flag in flags
    }
    width = max(map(len, spelled)) + 4
    complain("")
    for names in sorted(spelled):
        complain(f"  {names:{width}}{spelled[names]}")
