"""Labels of containers, as text; and of files, as the attribute that they are."""

from __future__ import annotations

import errno
import itertools
import os
import re
from pathlib import Path

import pytest

from layerhold import labels
from layerhold.errors import BadLabel
from layerhold.labels import (
    Labels,
    choose,
    container_labels,
    for_container,
    fresh_level,
    mount_option,
    shared_file_label,
)
from layerhold.linux import selinux

DEFAULTS = Labels(process="system_u:system_r:container_t:s0", mount="system_u:object_r:container_file_t:s0")
LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """SELinux, with a policy that knows every label without `unknown` in it."""

    def check(label: str) -> None:
        if "unknown" in label:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(selinux, "enabled", lambda: True)
    monkeypatch.setattr(selinux, "check_context", check)
    monkeypatch.setattr(labels, "default_labels", lambda: DEFAULTS)


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "enabled", lambda: False)


# -- mounts


def test_mount_option_is_quoted(on: None) -> None:
    assert mount_option(LABEL) == f'context="{LABEL}"'
    assert mount_option("") == ""


@pytest.mark.parametrize("label", ['a:b:c:s0",upperdir=/', "a:b:c:s0\n", "a:b:c\0"])
def test_a_label_cannot_end_its_quotes(on: None, label: str) -> None:
    with pytest.raises(BadLabel, match="cannot stand in an option"):
        mount_option(label)


def test_a_mount_cannot_have_a_label_that_the_policy_does_not_know(on: None) -> None:
    with pytest.raises(BadLabel, match='"a:b:unknown_t:s0": the policy of this machine does not know it'):
        mount_option("a:b:unknown_t:s0")


def test_a_process_that_may_not_ask_leaves_it_to_the_kernel(on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_label: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(selinux, "check_context", refuse)
    assert mount_option(LABEL) == f'context="{LABEL}"'


def test_no_option_where_selinux_is_off(off: None) -> None:
    assert mount_option(LABEL) == mount_option('"') == ""


# -- containers


def test_both_labels_have_the_same_two_categories() -> None:
    found = choose([], DEFAULTS, [])
    assert (found.process.rpartition(":")[0], found.mount.rpartition(":")[0]) == (
        "system_u:system_r:container_t:s0",
        "system_u:object_r:container_file_t:s0",
    )
    low, high = map(int, re.fullmatch(r"c(\d+),c(\d+)", found.process.rpartition(":")[2]).groups())  # type: ignore[union-attr]
    assert 0 <= low < high < 1024
    assert found.mount.endswith(found.process.rpartition(":")[2])


@pytest.mark.parametrize(
    ("options", "process", "mount"),
    [
        (["level:s0:c7,c9"], "system_u:system_r:container_t:s0:c7,c9", "system_u:object_r:container_file_t:s0:c7,c9"),
        (
            ["user:u", "role:r", "type:t", "filetype:f", "level:s1-s2:c1.c5"],
            "u:r:t:s1-s2:c1.c5",
            "u:object_r:f:s1-s2:c1.c5",
        ),
        (["level:s0", "level:s1"], "system_u:system_r:container_t:s1", "system_u:object_r:container_file_t:s1"),
        (["type:t", "disable"], "", "system_u:object_r:container_file_t:s0:c1022,c1023"),
    ],
)
def test_options(options: list[str], process: str, mount: str) -> None:
    assert choose(options, DEFAULTS, []) == Labels(process=process, mount=mount)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            "nonsense",
            "bad label option \"nonsense\": it is to be 'disable', or one of user, role, type, level, filetype",
        ),
        ("kind:x", 'bad label option "kind:x": it is to be'),
        ("type:", 'bad label option "type:": "" is no type of a label'),
        ("type:a:b", '"a:b" is no type of a label'),
        ("user:a b", '"a b" is no user of a label'),
        ('level:s0"', "is no level of a label"),
        ("disable:x", 'bad label option "disable:x"'),
    ],
)
def test_what_is_wrong_with_an_option(option: str, says: str) -> None:
    with pytest.raises(BadLabel) as caught:
        choose([option], DEFAULTS, [])
    assert says in str(caught.value)
    assert caught.value.label == option


def test_a_policy_without_levels_has_no_categories() -> None:
    defaults = Labels(process="u:r:t", mount="u:r:f")
    assert choose([], defaults, []) == defaults


def test_a_policy_without_containers_gives_no_process_label() -> None:
    assert choose([], Labels(), []) == choose(["disable"], Labels(), []) == Labels()
    assert choose(["type:t"], Labels(mount=DEFAULTS.mount), []) == Labels(mount=DEFAULTS.mount)


def test_a_default_that_is_no_label() -> None:
    with pytest.raises(BadLabel, match='bad label "container_t": a label is user:role:type'):
        choose([], Labels(process="container_t", mount=DEFAULTS.mount), [])


def test_categories_are_those_of_no_other_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_CATEGORIES", 4)
    used: list[str] = []
    for _ in range(5):
        used.append(f"u:r:t:{fresh_level(used)}")
    pairs = {f"u:r:t:s0:c{low},c{high}" for low, high in itertools.combinations(range(4), 2)}
    monkeypatch.undo()
    assert len(set(used)) == 5
    assert set(used) < pairs


def test_no_categories_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_CATEGORIES", 2)
    with pytest.raises(BadLabel, match="no two categories are left"):
        fresh_level(["u:r:t:s0:c0,c1", "no label"])


def test_the_last_pair_is_for_what_is_not_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([1023, 1022, 5, 5, 9, 3])
    monkeypatch.setattr(os, "urandom", lambda _size: next(draws).to_bytes(4, "little"))
    assert fresh_level([]) == "s0:c3,c9"


def test_a_container_gets_labels_where_selinux_is_on(on: None) -> None:
    first = container_labels([], used=[])
    assert choose([f"level:{first.process.split(':', 3)[3]}"], DEFAULTS, []) == first
    with pytest.raises(BadLabel, match="the policy of this machine does not know it"):
        container_labels(["type:unknown_t"], used=[])


def test_nothing_where_selinux_is_off(off: None) -> None:
    assert container_labels(["nonsense"], used=[]) == Labels()
    assert shared_file_label() == ""


def test_files_for_all_containers_have_no_categories(on: None) -> None:
    assert shared_file_label() == DEFAULTS.mount


def test_labels_in_flags_come_in_pairs_and_go_first(on: None) -> None:
    both = {"MountLabel": DEFAULTS.mount, "ProcessLabel": DEFAULTS.process}
    assert for_container(both, ["nonsense"], others=[]) == DEFAULTS
    for key, value in both.items():
        with pytest.raises(BadLabel, match="must either not be specified or both specified"):
            for_container({key: value, "Volatile": True}, [], others=[])


def test_labels_of_a_container_are_not_those_of_others(on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([1, 2, 3, 4, 5, 6])
    monkeypatch.setattr(os, "urandom", lambda _size: next(draws).to_bytes(4, "little"))
    others: list[dict[str, object]] = [
        {"ProcessLabel": "u:r:t:s0:c1,c2", "MountLabel": "u:r:f:s0:c1,c2"},
        {"ProcessLabel": "", "MountLabel": "u:r:f:s0:c3,c4"},
        {"ProcessLabel": None},
    ]
    found = for_container({"MountLabel": "", "ProcessLabel": ""}, ["type:other_t"], others=others)
    assert found.process == "system_u:system_r:other_t:s0:c5,c6"


# -- what the policy has


def test_default_labels_are_those_of_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_CONTEXTS", str(tmp_path / "contexts"))
    monkeypatch.setattr(labels, "_ETC", str(tmp_path))
    assert labels.default_labels() == Labels()
    (tmp_path / "config").write_text("# SELINUXTYPE=no\nSELINUX=permissive\nSELINUXTYPE=minimum\n")
    assert labels.default_labels() == Labels()
    (tmp_path / "minimum/contexts").mkdir(parents=True)
    (tmp_path / "minimum/contexts/lxc_contexts").write_text(
        '# no\n\nprocess = "system_u:system_r:container_t:s0"\nro_file = "x"\n'
        'file = "system_u:object_r:container_file_t:s0"\nword\n'
    )
    assert labels.default_labels() == DEFAULTS
    (tmp_path / "contexts").write_text("; first\nprocess=a:b:c\nfile=d:e:f\n")
    assert labels.default_labels() == Labels(process="a:b:c", mount="d:e:f")


# -- files


def test_a_label_that_all_containers_share(on: None) -> None:
    assert labels.shared(LABEL) == "system_u:object_r:container_file_t:s0"
    assert labels.shared("u:r:f") == "u:r:f"


@pytest.mark.root
def test_a_new_directory_is_labelled_by_one_call(on: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(selinux, "set_file_label", lambda *words: seen.append(words))
    labels.share(str(tmp_path))
    assert seen == [(str(tmp_path), DEFAULTS.mount)]


def test_a_new_directory_gets_none_where_selinux_is_off(off: None) -> None:
    labels.share("/no/such/place")
