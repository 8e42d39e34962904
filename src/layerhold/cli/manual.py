"""Manual pages (roff, the macros of man(7)) from the table of commands: `layerhold manual DIRECTORY`.

`layerhold.1` is the program with its global flags, `layerhold-COMMAND.1` one command. Nothing in them depends on the
machine or the day, so that packages come out the same each time.
"""

from __future__ import annotations

import os

from layerhold.cli.descriptions import PROGRAM, description, wrapped
from layerhold.cli.table import COMMANDS, GLOBAL, HELP, OWN
from layerhold.store import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from layerhold.cli.flags import Flag, Given
    from layerhold.cli.table import Command

_STATUS = (
    ("0", "All went well."),
    ("1", "Something failed, or the command or its arguments are not such as there are."),
    ("125", "A flag behind the command is not known, or help was asked for there."),
    ("130", "Interrupted."),
)
_ENVIRONMENT = (
    ("CONTAINERS_STORAGE_CONF", "The configuration file to read in the place of those below."),
    ("STORAGE_DRIVER", "The storage driver."),
    ("STORAGE_OPTS", "Options of the storage driver, with commas between them."),
    ("XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_RUNTIME_DIR", "Where an ordinary user's configuration and store are."),
)
_FILES = (
    ("~/.config/containers/storage.conf", "An ordinary user's settings."),
    ("/etc/containers/storage.conf, /usr/share/containers/storage.conf", "The system's settings."),
    ("/var/lib/containers/storage, /run/containers/storage", "The store of root."),
    ("~/.local/share/containers/storage", "The store of an ordinary user."),
)

_ESCAPES = (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("~", "\\(ti"), ("^", "\\(ha"))


def command(arguments: Sequence[str], _given: Given) -> int:
    """Write all pages into a directory."""
    directory = arguments[0]
    os.makedirs(directory, exist_ok=True)
    for name, page in pages():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(page)
    return 0


def pages() -> Iterator[tuple[str, str]]:
    """Give each page: the name of its file, and its text."""
    yield "layerhold.1", _joined(_program())
    for command in (*COMMANDS, *OWN):
        yield f"layerhold-{command.names[0]}.1", _joined(_command(command))


def _program() -> Iterator[str]:
    yield from _head("layerhold", "container layers, images and containers on disk")
    yield ".B layerhold\n[\\fIFLAG\\fR...] \\fICOMMAND\\fR [\\fIFLAG\\fR...] [\\fIARGUMENT\\fR...]\n.SH DESCRIPTION"
    yield _paragraphs(wrapped(PROGRAM))
    yield from _flags("FLAGS", (*GLOBAL, HELP))
    yield ".SH COMMANDS"
    for command in (*COMMANDS, *OWN):
        yield _item(f"\\fB{_text(command.names[0])}\\fR", _sentence(command))
    for title, rows in (("EXIT STATUS", _STATUS), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        yield from (_item(f"\\fB{_text(name)}\\fR", _text(about)) for name, about in rows)
    yield _see_also("storage.conf(5)", "podman(1)")


def _command(command: Command) -> Iterator[str]:
    name = command.names[0]
    yield from _head(f"layerhold-{name}", command.help[:1].lower() + command.help[1:])
    options = "[\\fIFLAG\\fR...] " if _own_flags(command) else ""
    yield f".B layerhold {_text(name)}\n{options}{_arguments(command.arguments)}".rstrip()
    yield f".SH DESCRIPTION\n{_sentence(command)}"
    if text := description(name):
        yield ".PP\n" + _paragraphs(text)
    if others := command.names[1:]:
        yield (
            ".PP\nThe same command under other names: " + ", ".join(f"\\fB{_text(other)}\\fR" for other in others) + "."
        )
    yield from _flags("FLAGS", _own_flags(command))
    if command.global_flags:
        yield ".PP\nThe flags of layerhold(1), which say where the store is, may be given, too."
    yield _see_also("layerhold(1)")


def _own_flags(command: Command) -> tuple[Flag, ...]:
    return (*command.flags, HELP)


def _head(name: str, about: str) -> Iterator[str]:
    yield f'.TH "{_text(name.upper())}" 1 "" "Layerhold {VERSION}" "Layerhold"'
    yield f".SH NAME\n{_text(name)} \\- {_text(about)}\n.SH SYNOPSIS"


def _flags(title: str, flags: Iterable[Flag]) -> Iterator[str]:
    yield f".SH {title}"
    for flag in sorted(flags, key=lambda one: one.names[0]):
        spelled = ", ".join(f"\\fB{_text(word)}\\fR" for word in flag.spelled.split(", "))
        value = "" if flag.yes_or_no else f" \\fI{flag.value}\\fR"
        again = " May be given several times." if flag.repeated else ""
        yield _item(spelled + value, _text(f"{flag.help}.{again}"))


def _see_also(*others: str) -> str:
    return ".SH SEE ALSO\n" + ",\n".join(f".BR {_text(name)} ({section}" for name, _, section in _parted(others))


def _parted(others: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    return (other.partition("(") for other in others)


def _sentence(command: Command) -> str:
    return _text(command.help) + "."


def _arguments(words: str) -> str:
    return " ".join(f"\\fI{_text(word)}\\fR" for word in words.split())


def _item(left: str, right: str) -> str:
    return f".TP\n{left}\n{right}"


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_marked(part) for part in text.split("\n\n"))


def _marked(text: str) -> str:
    """Make bold what stands in backquotes."""
    parts = text.split("`")
    marked = "".join(f"\\fB{_text(part)}\\fR" if at % 2 else _text(part) for at, part in enumerate(parts))
    return "\n".join(_kept(line) for line in marked.split("\n"))


def _text(text: str) -> str:
    """Keep the signs that mean something to roff as they are."""
    for sign, escape in _ESCAPES:
        text = text.replace(sign, escape)
    return text


def _kept(line: str) -> str:
    """Keep a line that starts with a dot from being taken for a request."""
    return f"\\&{line}" if line.startswith(".") else line


def _joined(parts: Iterator[str]) -> str:
    return "\n".join(parts) + "\n"
