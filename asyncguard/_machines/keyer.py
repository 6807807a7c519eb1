"""From the arguments of a call to its key, prepared when the function is decorated."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from asyncguard._machines import canonical, keys_hints
from asyncguard._machines.binder import Binder, MismatchError, signature_of
from asyncguard._machines.keys import UnkeyableError, freeze
from asyncguard._machines.keys_base import Freeze

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from contextvars import ContextVar

_UNSET = object()


class _Raw:
    """Tags the key of a call whose arguments do not fit the signature that the function shows."""


class _Default:
    """Tags a default that has no key (a sentinel): the default of a parameter is one object, so its name tells it."""


class Keyer:
    """The key of a call: its arguments bound, without the ignored ones, frozen, with what it varies on.

    `own` is the name of the parameter that holds the object whose own cache this is (`self`); it is left out.
    `for_store()` is the same with keys that other processes share.
    `quick` says that there is one parameter and nothing else in the key, so that an exact `int` or `str` argument is
    its own key.
    """

    __slots__ = (
        "_binder", "_drop", "_freeze", "_ignore", "_kept", "_name", "_own", "_plain", "_signature", "_vary_on",
        "names", "quick",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        own: str | None = None,
        ignore: Sequence[str] = (),
        vary_on: Sequence[ContextVar[Any]] = (),
    ) -> None:
        signature = signature_of(function)
        self._signature = signature  # not the function: whoever keeps a keyer must not keep the function alive
        self._name = name
        self._freeze: Freeze = freeze
        self._own = own
        self._binder = Binder(signature) if signature is not None else None
        self._ignore: frozenset[str] = frozenset(ignore if own is None else (*ignore, own))
        self._vary_on = tuple(vary_on)
        self.names = names = self._binder.names if self._binder is not None else ()
        self._drop = None if self._binder is None else self._binder.var_keyword
        self._check_ignore(names)
        self._kept = tuple((at, each) for at, each in enumerate(names) if each not in self._ignore)
        self._plain = not self._vary_on and not (self._drop is not None and self._ignore)
        self.quick = len(names) == 1 == len(self._kept) and not self._vary_on and signature is not None
        if self.quick and self._binder is not None:
            self.quick = self._binder.takes_one()

    def for_store(self) -> Keyer:
        """Return a keyer whose keys are bytes, equal in all processes for arguments that share a key in this one.

        They raise TypeError also for arguments that mean something in this process only.
        """
        made = copy.copy(self)
        made._freeze = canonical.encode  # noqa: SLF001 - a Keyer as well
        return made

    def check_annotations(self, function: Callable[..., Any]) -> None:
        """Raise TypeError if an annotation tells that no argument for a parameter can be part of a key."""
        names = [name for _, name in self._kept]
        for name, culprit in keys_hints.unkeyable(function, names):
            raise self._refusal(name, f"{culprit} equals only itself")

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the key of a call.

        Raises TypeError naming the parameter whose argument has no key.
        """
        if self._binder is None:
            return self._raw(args, kwargs)
        try:
            values = self._binder(args, kwargs)
        except MismatchError:
            return self._raw(args, kwargs)
        if not self._plain:
            return self.of_values(values)
        freeze = self._freeze
        try:
            kept = [freeze(values[at]) for at, _ in self._kept]
        except UnkeyableError:
            return self.of_values(values)  # slower, but it knows the name of the parameter
        return kept[0] if len(kept) == 1 else tuple(kept)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the value of each parameter; raises TypeError as the call itself would."""
        if self._binder is not None:
            try:
                return self._binder(args, kwargs)
            except MismatchError:
                if self._signature is not None:
                    self._signature.bind(*args, **kwargs)
        raise TypeError(f"{self._name}: the arguments do not fit its signature")

    def of_values(self, values: tuple[Any, ...]) -> Hashable:
        """Return the key of a call from the value of each parameter."""
        kept = [self._frozen(name, values[at]) for at, name in self._kept]
        if self._vary_on:
            kept.extend(self._varied())
        return kept[0] if len(kept) == 1 else tuple(kept)

    def of_value(self, name: str, value: Any) -> Hashable:
        """Return the key of one value of a parameter."""
        try:
            return self._freeze(value)
        except UnkeyableError as error:
            raise self._refusal(name, str(error)) from error

    def _frozen(self, name: str, value: Any) -> Hashable:
        if name == self._drop:
            value = {each: value[each] for each in value if each not in self._ignore}
        try:
            return self._freeze(value)
        except UnkeyableError as error:
            if self._binder is not None and value is self._binder.default(name):
                return (_Default, name)
            raise self._refusal(name, str(error)) from error

    def _varied(self) -> Iterable[Hashable]:
        for variable in self._vary_on:
            value = variable.get(_UNSET)
            yield (_Raw,) if value is _UNSET else self.of_value(variable.name, value)

    def _raw(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        left_out = 1 if self._own is not None and self._own not in kwargs else 0
        by_position = tuple([self.of_value(f"args[{at}]", value) for at, value in enumerate(args) if at >= left_out])
        by_name = {name: self.of_value(name, value) for name, value in kwargs.items() if name not in self._ignore}
        return (_Raw, by_position, frozenset(by_name.items()), tuple(self._varied()))

    def _check_ignore(self, names: tuple[str, ...]) -> None:
        unknown = [] if self._drop is not None else sorted(self._ignore - set(names))
        if unknown and names:
            raise ValueError(
                f"ignore must name parameters of {self._name} ({', '.join(names)}), got {', '.join(map(repr, unknown))}"
            )

    def _refusal(self, parameter: str, why: str) -> TypeError:
        return TypeError(
            f"{self._name}: the argument {parameter!r} cannot be part of a cache key: {why}. "
            f"Leave it out with ignore=({parameter!r},) if the result does not depend on it, give key=, a function of "
            "the arguments, or give its class a method __cache_key__()"
        )
