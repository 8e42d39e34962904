#!/bin/sh
# The Python environments of the Makefile.
#
#   environment.sh pythons                 the interpreters found, best first: "VERSION PATH", one a minor version
#   environment.sh make DIR VERSION EXTRA  an environment in DIR with the project and what EXTRA (of pyproject.toml;
#                                          "test" if not given) needs; VERSION may be "any", or "system": /usr/bin's,
#                                          if that can be used
#
# An interpreter counts when it starts, is 3.11 to 3.13 and can make environments. `python3` of PATH comes first, unless it
# is that of an environment which was made here, and may be about to be made anew.
set -eu
cd "$(dirname "$0")/.."

usable='import sys, venv, ensurepip
v = sys.version_info
print(f"{v[0]}.{v[1]}") if (3, 11) <= v < (3, 14) else sys.exit(1)'

pythons() {
    seen=' '
    for candidate in python3 python3.11 python3.12 python3.13 /usr/bin/python3 /usr/local/bin/python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-3].*/bin/python3; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        case $path in "$PWD"/.venv*) continue ;; esac
        version=$("$path" -I -c "$usable" 2>/dev/null) || continue
        case $seen in *" $version "*) continue ;; esac
        seen="$seen$version "
        echo "$version $path"
    done
}

make_environment() {
    directory=$1 wanted=$2 extra=$3
    if [ "$wanted" = system ]; then
        wanted=$(/usr/bin/python3 -I -c "$usable" 2>/dev/null) && PATH=/usr/bin:$PATH || wanted=any
    fi
    found=$(pythons | awk -v wanted="$wanted" 'wanted == "any" || $1 == wanted { print $2; exit }')
    if [ -z "$found" ]; then
        echo "No Python 3.11 to 3.13 that can make environments was found." >&2
        echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "Making $directory with $found" >&2
    rm -rf "$directory"
    "$found" -m venv "$directory"
    # The one that comes with Python 3.11 writes start scripts that load `re`: 4 ms more for each command.
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25' || :
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
    touch "$directory/.made"
}

case $1 in
pythons) pythons ;;
make) make_environment "$2" "${3:-any}" "${4:-test}" ;;
*) echo "environment.sh: unknown word $1" >&2; exit 2 ;;
esac
