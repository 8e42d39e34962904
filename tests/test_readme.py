"""The commands of the README run; its library example is in test_examples.py, with the others."""

from __future__ import annotations

from pathlib import Path

from tests.examples import README, ROOT, Folder, blocks, examples, rootfs


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (library,) = [block for block, _ in examples(README)]
    folder.python(library.text)
    shells = [block.text for block in blocks(README) if block.language == "sh"]
    run = [text for text in shells if text.startswith("layerhold")]
    for text in run:
        folder.run("sh", "-euc", text)
    assert (folder.path / "base.tar").read_bytes() == rootfs()
    targets = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY"))
    for line in "".join(set(shells) - set(run)).splitlines():
        make, target, *_ = line.split()
        assert (make, target in targets.split()) == ("make", True), line
