"""Blocks behave as those of the standard library do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from layerhold import blocks

MODULES = [blocks, contextlib]


class Boom(Exception):
    pass


def noted(module: Any, what: list[str], *, swallow: bool = False, name: str = "") -> Callable[[], Any]:
    @module.contextmanager  # type: ignore[untyped-decorator]
    def block() -> Iterator[str]:
        """Say what happens."""
        what.append(f"enter{name}")
        try:
            yield "given"
        except Boom:
            what.append(f"caught{name}")
            if not swallow:
                raise
        finally:
            what.append(f"leave{name}")

    return block  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", MODULES)
def test_a_block_that_ends_well(module: Any) -> None:
    what: list[str] = []
    with noted(module, what)() as given:
        what.append(given)
    assert what == ["enter", "given", "leave"]
    assert noted(module, what).__doc__ == "Say what happens."


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("swallow", [False, True])
def test_an_error_in_a_block(module: Any, swallow: bool) -> None:
    what: list[str] = []
    expected = contextlib.nullcontext() if swallow else pytest.raises(Boom)
    with expected, noted(module, what, swallow=swallow)():
        raise Boom
    assert what == ["enter", "caught", "leave"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("error", [StopIteration("x"), KeyboardInterrupt(), GeneratorExit(), RuntimeError("y")])
def test_every_kind_of_error_passes(module: Any, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, noted(module, [])():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("module", MODULES)
def test_another_error_takes_the_place_of_the_first(module: Any) -> None:
    @module.contextmanager  # type: ignore[untyped-decorator]
    def block() -> Iterator[None]:
        try:
            yield
        except Boom as error:
            raise KeyError from error

    with pytest.raises(KeyError), block():
        raise Boom


@pytest.mark.parametrize("module", MODULES)
def test_a_generator_that_yields_twice(module: Any) -> None:
    @module.contextmanager  # type: ignore[untyped-decorator]
    def block() -> Iterator[None]:
        with contextlib.suppress(Boom):
            yield
        yield

    with pytest.raises(RuntimeError), block():
        pass
    with pytest.raises(RuntimeError), block():
        raise Boom


@pytest.mark.parametrize("module", MODULES)
def test_a_stack_is_left_in_reverse(module: Any) -> None:
    what: list[str] = []
    with module.ExitStack() as stack:
        for name in "12":
            assert stack.enter_context(noted(module, what, name=name)()) == "given"
        stack.callback(what.append, "called")
    assert what == ["enter1", "enter2", "called", "leave2", "leave1"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("swallow", [False, True])
def test_an_error_in_a_stack(module: Any, swallow: bool) -> None:
    what: list[str] = []
    with contextlib.suppress(Boom), module.ExitStack() as stack:
        stack.enter_context(noted(module, what, name="1")())
        stack.enter_context(noted(module, what, name="2", swallow=swallow)())
        raise Boom
    assert ("caught1" in what) != swallow
    assert what[-1] == "leave1"


@pytest.mark.parametrize("module", MODULES)
def test_an_error_while_a_stack_is_left(module: Any) -> None:
    what: list[str] = []

    def fail() -> None:
        raise Boom

    stack = module.ExitStack()
    stack.enter_context(noted(module, what)())
    stack.callback(fail)
    with pytest.raises(Boom), stack:
        pass
    assert what == ["enter", "caught", "leave"]
