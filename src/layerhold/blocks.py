"""Blocks (`with`): what `contextlib` has of them, without the modules that it loads.

`contextlib` loads `collections` and `functools`, which cost a short command 2 ms of 20. `contextmanager` and
`ExitStack` behave as theirs, as far as they are used here; the types are theirs. See
docs/decisions/0001-values-without-dataclasses.md.
"""

from __future__ import annotations

__all__ = ["ExitStack", "contextmanager"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import ExitStack, contextmanager
    from types import TracebackType
    from typing import Any
else:

    def contextmanager(function: Callable[..., Generator[Any, None, None]]) -> Callable[..., Block]:
        """Make a block of a generator function that yields once."""

        def made(*args: object, **kwargs: object) -> Block:
            return Block(function(*args, **kwargs))

        for name in ("__doc__", "__module__", "__name__", "__qualname__"):
            setattr(made, name, getattr(function, name))
        made.__wrapped__ = function
        return made

    class ExitStack:
        """Blocks that are entered one after the other, and left together in the reverse order."""

        def __init__(self) -> None:
            self._exits: list[Callable[..., object]] = []

        def enter_context(self, block: Any) -> Any:  # noqa: ANN401
            """Enter a block, which is left with the stack; give what it gives."""
            given = block.__enter__()
            self._exits.append(block.__exit__)
            return given

        def callback(self, function: Callable[..., object], *args: object) -> None:
            """Call a function when the stack is left."""

            def called(*_error: object) -> None:
                function(*args)

            self._exits.append(called)

        def __enter__(self) -> ExitStack:
            return self

        def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> bool:
            given = error
            while self._exits:
                leave = self._exits.pop()
                try:
                    if leave(type(error) if error else None, error, error.__traceback__ if error else None):
                        error = None
                except BaseException as failure:
                    error = failure
            if error is not None and error is not given:
                raise error
            return given is not None and error is None


class Block:
    """A generator that is run as a block: up to its `yield`, and then from there."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[Any, None, None]) -> None:
        self._generator = generator

    def __enter__(self) -> object:
        return next(self._generator)

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> bool:
        if error is None:
            if next(self._generator, self) is not self:
                raise RuntimeError("the generator yields twice")
            return False
        try:
            self._generator.throw(error)
        except StopIteration as end:
            return end is not error
        except BaseException as failure:
            if failure is not error and not (isinstance(error, StopIteration) and failure.__cause__ is error):
                raise
            error.__traceback__ = traceback
            return False
        raise RuntimeError("the generator yields twice")
