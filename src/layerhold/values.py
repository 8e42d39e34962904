"""Frozen values, and the few names of `typing` that exist at run time.

A `Value` is what `dataclass(frozen=True, slots=True, kw_only=True)` would make: fields from annotations, a
keyword-only constructor, equality, a repr, and `replace`. The standard one costs 9 ms at import and `typing` 6, as much
as the interpreter itself; a short command such as `layerhold exists` would pay for both. See
docs/decisions/0001-values-without-dataclasses.md.

    class Point(Value):
        x: int
        y: int = 0

    Point(x=1).replace(y=2)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, dataclass_transform
else:

    class Generic:
        """Stands in for `typing.Generic`: a class that can be subscripted."""

        def __class_getitem__(cls, _item: object) -> type:
            return cls

    class Protocol(Generic):
        """Stands in for `typing.Protocol`: structure is checked by mypy alone."""

    def TypeVar(name: str, **_options: object) -> str:  # noqa: N802
        """Stand in for `typing.TypeVar`."""
        return name

    def dataclass_transform(**_options: object) -> Callable[[type], type]:
        """Stand in for `typing.dataclass_transform`."""
        return lambda cls: cls


__all__ = ["Generic", "Protocol", "TypeVar", "Value"]

_MISSING = object()


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value:
    """A frozen value with named fields. Subclass it and annotate the fields; class attributes are the defaults."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**kwargs)
        own = {
            name: cls.__dict__.get(name, _MISSING)
            for name, kind in cls.__dict__.get("__annotations__", {}).items()  # noqa: RUF063 - inspect costs 10 ms
            if not (name.startswith("_") or str(kind).startswith("ClassVar"))
        }
        cls._fields = (*cls._fields, *(name for name in own if name not in cls._fields))
        cls._defaults = {**cls._defaults, **{name: value for name, value in own.items() if value is not _MISSING}}
        for name in own:
            if name in cls.__dict__:
                delattr(cls, name)

    def __init__(self, **given: Any) -> None:  # noqa: ANN401
        defaults = self._defaults
        into = self.__dict__
        for name in self._fields:
            if name in given:
                into[name] = given.pop(name)
            elif name in defaults:
                into[name] = defaults[name]
            else:
                raise TypeError(f"{type(self).__name__}: missing field {name!r}")
        if given:
            raise TypeError(f"{type(self).__name__}: no such field: {', '.join(sorted(given))}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace({name}=...)")

    __delattr__ = None  # type: ignore[assignment]

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401
        """Make another value like this one, with `changes` to its fields."""
        return type(self)(**{**self.__dict__, **changes})

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
