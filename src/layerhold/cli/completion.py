"""What bash, zsh and fish need to complete our words, from the table of commands: `layerhold completion SHELL`.

Each script is a fixed frame (the texts below) around what the table says: of each command its flags and what its
arguments are. IDs and names are asked of the command itself when they are needed, with the flags for the store that
stand on the line. A colon or an equals sign ends a word for bash, but not for us, so the bash frame reads the line.
"""

from __future__ import annotations

from layerhold.cli import output
from layerhold.cli.table import COMMANDS, GLOBAL, HELP, OWN
from layerhold.drivers.choose import ORDER
from layerhold.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from layerhold.cli.flags import Flag, Given
    from layerhold.cli.table import Command

DRIVERS = ORDER

# What an argument is, by its word in the table: listings to take it from, or what the shell finds by itself.
_KINDS = {
    "LAYER": "layers",
    "PARENT": "layers",
    "TOP-LAYER": "layers",
    "OTHER": "layers",
    "IMAGE": "images",
    "CONTAINER": "containers",
    "LAYER-OR-CONTAINER": "layers containers",
    "THING": "layers images containers",
    "DIRECTORY": "directory",
    "STORE": "directory",
    "FILE": "file",
}

_BASH = r"""# Completion for bash of the commands of layerhold, made by `layerhold completion bash`.
_layerhold() {
    local line=${COMP_LINE:0:COMP_POINT} command="" i word cur before
    local -a words=() store=() arguments=() kinds=() found=()
    local flags="@GLOBAL@" valued="@GLOBAL_VALUED@" files="" commands="@COMMANDS@"
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[-1]}
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        case $word in
        @STORE_EQUALS@) store+=("$word") ;;
        @STORE@) store+=("$word" "${words[++i]}") ;;
        -*) [[ " $valued " == *" $word "* ]] && ((i++)) ;;
        *)
            if [[ $command ]]; then
                arguments+=("$word")
            else
                command=$word
                _layerhold_table
            fi
            ;;
        esac
    done
    before=${words[-2]}
    if [[ $cur == --*=* ]]; then
        before=${cur%%=*}
        cur=${cur#*=}
    fi
    if [[ " $valued " == *" $before "* ]]; then
        _layerhold_value "$before"
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    else
        _layerhold_argument "$1"
    fi
}

_layerhold_value() {
    if [[ " $files " == *" $1 "* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [[ " @DIRECTORIES@ " == *" $1 "* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    elif [[ " @DRIVER@ " == *" $1 "* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "@DRIVERS@" -- "$cur")
    fi
}

_layerhold_argument() {
    local at=${#arguments[@]} kind
    ((at < ${#kinds[@]})) || ((at = ${#kinds[@]} - 1))
    ((at < 0)) && return
    case ${kinds[at]} in
    file | directory)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen "-${kinds[at]:0:1}" -- "$cur")
        return
        ;;
    =*) mapfile -t found <<<"${kinds[at]//[= ]/$'\n'}" ;;
    key) mapfile -t found < <("$1" "${store[@]}" "${command/[gs]et-/list-}" "${arguments[0]}" 2>/dev/null) ;;
    *)
        for kind in ${kinds[at]}; do
            mapfile -t -O "${#found[@]}" found < <(
                "$1" "${store[@]}" "$kind" 2>/dev/null | sed -n 's/^\tname: //; /^[^\t]/p'
            )
        done
        ;;
    esac
    for word in "${found[@]}"; do
        [[ $word && $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
    # What stands before the last colon is a word of its own for bash, and stays.
    [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%:*}:"}")
}

_layerhold_table() {
    case $command in
@TABLE@
    esac
    flags+=" @STORE_FLAGS@"
}

complete -F _layerhold layerhold
"""

_ZSH = r"""#compdef layerhold
# Completion for zsh of the commands of layerhold, made by `layerhold completion zsh`.
_layerhold() {
    local curcontext=$curcontext state line flag kind
    local -a store commands
    local -A opt_args
    _arguments -C -S \
@GLOBAL@ \
        '1:command:->command' \
        '*::argument:->argument' && return
    for flag in @STORE@; do
        [[ -n $opt_args[$flag] ]] && store+=($flag ${(Q)opt_args[$flag]})
    done
    if [[ $state == command ]]; then
        commands=(
@COMMANDS@
        )
        _describe command commands
        return
    fi
    case $words[1] in
@TABLE@
    esac
}

_layerhold_of() {
    local -a found
    for kind in $@; do
        found+=(${(f)"$(layerhold $store $kind 2>/dev/null | sed -n 's/^\tname: //; /^[^\t]/p')"})
    done
    compadd -a found
}

_layerhold_key() {
    local -a found
    found=(${(f)"$(layerhold $store ${words[1]/[gs]et-/list-} ${line[1]} 2>/dev/null)"})
    compadd -a found
}

compdef _layerhold layerhold
"""

_FISH = r"""# Completion for fish of the commands of layerhold, made by `layerhold completion fish`.
function __layerhold_command
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case @STORE@
                set -e words[1]
            case '-*'
            case '*'
                echo $words[1]
                return
        end
        set -e words[1]
    end
end

function __layerhold_store
    set -l words (commandline -opc)
    while set -q words[1]
        switch $words[1]
            case @STORE_EQUALS@
                echo $words[1]
            case @STORE@
                printf '%s\n' $words[1..2]
        end
        set -e words[1]
    end
end

function __layerhold_is
    set -l command (__layerhold_command)
    and contains -- "$command" $argv
end

function __layerhold_of
    set -l store (__layerhold_store)
    for kind in $argv
        layerhold $store $kind 2>/dev/null | string match --regex --groups-only '^(?:\tname: )?([^\t].*)'
    end
end

complete -c layerhold -f
@GLOBAL@
@COMMANDS@
@TABLE@
"""


def command(arguments: Sequence[str], _given: Given) -> int:
    """Print the script for a shell."""
    make = SHELLS.get(arguments[0])
    if make is None:
        raise StorageError(f'no completion for "{arguments[0]}"', hint=f"there is one for {', '.join(SHELLS)}")
    output.line(make().rstrip("\n"))
    return 0


def _every() -> Sequence[Command]:
    return (*COMMANDS, *OWN)


def _kinds(command: Command) -> list[str]:
    """Say of each argument of a command what it is: kinds to list, `file`, `directory`, `key`, `=` and its words."""
    return [_kind(word.strip("[].")) for word in command.arguments.split()]


def _kind(word: str) -> str:
    if word == "KEY":
        return "key"
    return "=" + word.replace("|", " ") if "|" in word else _KINDS.get(word, "")


def _words(flag: Flag) -> list[str]:
    return flag.spelled.split(", ")


def _spelled(flags: Iterable[Flag]) -> list[str]:
    return [word for flag in flags for word in _words(flag)]


def _with_value(flags: Iterable[Flag], *values: str) -> list[str]:
    """The spellings of flags that take a value, or one of these values."""
    return _spelled(flag for flag in flags if not flag.yes_or_no and (not values or flag.value in values))


def _every_flag() -> Iterable[Flag]:
    return dict.fromkeys((*GLOBAL, *(flag for command in _every() for flag in command.flags)))


def _framed(frame: str, parts: Mapping[str, str]) -> str:
    for name, text in parts.items():
        frame = frame.replace(f"@{name}@", text)
    return frame


# -- bash


def bash() -> str:
    """Give the script for bash."""
    store = _with_value(GLOBAL)
    return _framed(
        _BASH,
        {
            "GLOBAL": " ".join(_spelled((*GLOBAL, HELP))),
            "GLOBAL_VALUED": " ".join(store),
            "COMMANDS": " ".join(command.names[0] for command in _every()),
            "STORE_EQUALS": " | ".join(f"{word}=*" for word in store),
            "STORE": " | ".join(store),
            "STORE_FLAGS": " ".join(_spelled((*GLOBAL, HELP))),
            "DIRECTORIES": " ".join(_with_value(_every_flag(), "DIRECTORY")),
            "DRIVER": " ".join(_with_value(_every_flag(), "DRIVER")),
            "DRIVERS": " ".join(DRIVERS),
            "TABLE": "\n".join(_bash_row(command) for command in _every()),
        },
    )


def _bash_row(command: Command) -> str:
    does = [
        f'flags="{" ".join(_spelled(command.flags))}"',
        f'valued+=" {" ".join(_with_value(command.flags))}"',
        f'files="{" ".join(_with_value(command.flags, "FILE"))}"',
        f"kinds=({' '.join(_quoted(kind) for kind in _kinds(command))})",
    ]
    return f"    {' | '.join(command.names)}) {'; '.join(does)} ;;"


# -- zsh


def zsh() -> str:
    """Give the script for zsh."""
    store = _with_value(GLOBAL)
    return _framed(
        _ZSH,
        {
            "GLOBAL": " \\\n".join(f"        {_zsh_flag(flag)}" for flag in (*GLOBAL, HELP)),
            "STORE": " ".join(store),
            "COMMANDS": "\n".join(
                f"            {_quoted(f'{command.names[0]}:{command.help}')}" for command in _every()
            ),
            "TABLE": "\n".join(_zsh_row(command) for command in _every()),
        },
    )


def _zsh_row(command: Command) -> str:
    flags = [_zsh_flag(flag) for flag in (*command.flags, *(GLOBAL if command.global_flags else ()), HELP)]
    kinds = _kinds(command)
    arguments = []
    for at, (word, kind) in enumerate(zip(command.arguments.split(), kinds, strict=True), 1):
        place = "*" if command.most is None and at == len(kinds) else str(at)
        arguments.append(_quoted(f"{place}:{word.strip('[].').lower().replace('|', ' ')}:{_zsh_action(kind)}"))
    specs = " \\\n            ".join((*flags, *arguments))
    return f"    {' | '.join(command.names)})\n        _arguments -S \\\n            {specs}\n        ;;"


def _zsh_flag(flag: Flag) -> str:
    help = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")  # noqa: A001 - the field's name
    action = {"FILE": "_files", "DIRECTORY": "_files -/", "DRIVER": f"({' '.join(DRIVERS)})"}.get(flag.value, "")
    value = "" if flag.yes_or_no else f":{flag.value.lower()}:{action}"
    alone = "*" if flag.repeated else f"({' '.join(_words(flag))})"
    return " ".join(_quoted(f"{alone}{word}{_zsh_join(word) if value else ''}[{help}]{value}") for word in _words(flag))


def _zsh_join(word: str) -> str:
    """How the value follows: behind `=` or in the next word, in the next word only."""
    return "=" if word.startswith("--") else ""


def _zsh_action(kind: str) -> str:
    if kind.startswith("="):
        return f"({kind[1:]})"
    if kind == "key":
        return "_layerhold_key"
    return {"file": "_files", "directory": "_files -/", "": ""}.get(kind, f"_layerhold_of {kind}")


# -- fish


def fish() -> str:
    """Give the script for fish."""
    store = _with_value(GLOBAL)
    return _framed(
        _FISH,
        {
            "STORE_EQUALS": " ".join(_quoted(f"{word}=*") for word in store),
            "STORE": " ".join(store),
            "GLOBAL": "\n".join(f"complete -c layerhold{_fish_flag(flag)}" for flag in (*GLOBAL, HELP)),
            "COMMANDS": "\n".join(
                f"complete -c layerhold -n 'test -z (__layerhold_command | string collect)' -a {command.names[0]}"
                f" -d {_quoted(command.help)}"
                for command in _every()
            ),
            "TABLE": "\n".join(row for command in _every() for row in _fish_rows(command)),
        },
    )


def _fish_rows(command: Command) -> Iterator[str]:
    when = f"complete -c layerhold -n '__layerhold_is {' '.join(command.names)}'"
    for flag in command.flags:
        yield when + _fish_flag(flag)
    first = next(iter(_kinds(command)), "")
    if first == "file":
        yield f"{when} -F"
    elif first == "directory":
        yield f"{when} -a '(__fish_complete_directories)'"
    elif first.startswith("="):
        yield f"{when} -a {_quoted(first[1:])}"
    elif first:
        yield f"{when} -a '(__layerhold_of {first})'"


def _fish_flag(flag: Flag) -> str:
    names = "".join(f" -l {name}" if len(name) > 1 else f" -s {name}" for name in flag.names)
    value = {"FILE": " -r -F", "DIRECTORY": " -x -a '(__fish_complete_directories)'"}.get(flag.value, " -x")
    if flag.value == "DRIVER":
        value += f" -a {_quoted(' '.join(DRIVERS))}"
    return f"{names}{'' if flag.yes_or_no else value} -d {_quoted(flag.help)}"


def _quoted(text: str) -> str:
    """Quote for the three shells (for fish, a text without a backslash)."""
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: Mapping[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""The script of each shell that there is one for."""
