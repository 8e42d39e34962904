"""The examples of README and docs run, and print what they are said to print."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from tests import stores
from tests.examples import API, GUIDE, IMPORT, README, Block, Folder, examples
from tests.stores import Place


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("example", "printed"),
    [
        pytest.param(*one, id=f"{page.name}-{one[0].headline}")
        for page in (README, GUIDE, API)
        for one in examples(page)
    ],
)
def test_an_example_prints_what_it_says(folder: Folder, example: Block, printed: str) -> None:
    if example.text != IMPORT and not example.headline.startswith("The library"):
        folder.python(IMPORT)
    out = folder.python(example.text)
    if printed:
        assert fnmatch.fnmatchcase(out, re.sub(r"[\[*?]", "[\\g<0>]", printed).replace("…", "*")), out


def test_the_guide_has_ten_tasks_each_with_its_output() -> None:
    tasks = [block.headline for block, printed in examples(GUIDE) if printed]
    assert len(tasks) == len(examples(GUIDE))
    assert [int(task.split(".")[0]) for task in tasks if not task.startswith("Also")] == list(range(1, 11))


@pytest.mark.root
@pytest.mark.compat
def test_podman_lists_the_image_of_the_guide() -> None:
    with stores.scratch("guide") as path:
        Folder(path, "overlay").python(IMPORT)
        listed = Place(path, "overlay").podman58("images", "--format", "{{.Repository}}:{{.Tag}}")
        assert listed.stdout.splitlines()[-1] == "localhost/demo:1", listed.stderr
