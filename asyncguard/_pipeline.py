"""Floor 2: strategies, the pipelines that order them, and the record that a guarded function carries.

One guarded function has one flat list of strategies: decorating it again grows its pipeline and wraps the original
anew. Each strategy wraps what is inside it in a driver of its own; neighbours that ask for admission share one.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import warnings
import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from asyncguard._order import Misplaced, harmful_pairs, reason_at
from asyncguard._runtime import callers, colour, streams
from asyncguard._runtime.chains import Chains, Target
from asyncguard._strategy import Strategy, Transparent, everything

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asyncguard._machines.partition_keys import PartitionBy

AnyStrategy = Strategy[Any, Any]
F = TypeVar("F", bound="Callable[..., object]")
S = TypeVar("S", bound=AnyStrategy)
P = ParamSpec("P")
T = TypeVar("T")


class Widened:
    """Marks a pipeline that holds a fallback: a checker is not told that the result type stays what it was."""


class Kept:
    """Marks a pipeline whose functions keep their types."""


if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    TypeT = TypeVarWithDefault("TypeT", default=Any)
else:
    TypeT = TypeVar("TypeT")

__all__ = ["GuardRecord", "Pipeline", "Site", "guard", "pipeline_of", "record_of"]

_sites: weakref.WeakSet[Site] = weakref.WeakSet()
_named: weakref.WeakSet[Pipeline] = weakref.WeakSet()


class Site:
    """One guarded function in one pipeline: what a driver knows about the place where it runs."""

    __slots__ = ("__weakref__", "_function", "asked", "holds", "kind", "monitored", "name", "pipeline", "stream")

    def __init__(self, pipeline: Pipeline, function: Callable[..., Any] | Target) -> None:
        self.pipeline = pipeline
        self._function = function
        self.asked = False  # for its function: who asks for it may keep it
        name = function.name if isinstance(function, Target) else colour.name_of(function)
        self.name = pipeline.name or _monitored_as(pipeline) or name
        pipeline.label = pipeline.label or self.name
        self.kind: colour.Kind | None = None  # None for a block of code
        self.stream = pipeline.stream
        self.monitored = any(strategy.monitors for strategy in pipeline)
        self.holds = pipeline.stream or any(strategy.holds for strategy in pipeline)
        _sites.add(self)

    @property
    def function(self) -> Callable[..., Any]:
        """The guarded function."""
        self.asked = True
        return self._function.find() if isinstance(self._function, Target) else self._function


def _monitored_as(pipeline: Pipeline) -> str | None:
    """Return the name of the pipeline's monitor: the events of all strategies carry the name of the monitored call."""
    return next((strategy.options.name for strategy in pipeline if strategy.monitors), None)


class Pipeline(Generic[TypeT]):
    """Strategies around a function, outermost first, exactly as given.

    Use it as a decorator, on many functions, or call through it where there is no function to decorate:
    `await pipeline.call(client.embeddings.create, input=text)`, sync `pipeline.call_sync(...)`.
    With `stream=True` a coroutine that returns a stream keeps its permits and deadline until the stream is closed.
    """

    @overload
    def __init__(
        self: Pipeline[Kept],
        *strategies: Transparent[Any, Any],
        name: str | None = None,
        partition: PartitionBy | None = None,
        stream: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Pipeline[Widened],
        *strategies: AnyStrategy,
        name: str | None = None,
        partition: PartitionBy | None = None,
        stream: bool = False,
    ) -> None: ...
    def __init__(
        self,
        *strategies: AnyStrategy,
        name: str | None = None,
        partition: PartitionBy | None = None,
        stream: bool = False,
    ) -> None:
        _check(strategies)
        self._strategies = strategies
        self.name = name
        self.label = name  # how it is called in words: its name, or that of the first function it guards
        self.partition = partition
        self.stream = stream
        self._keeps = False  # whether some strategy keeps the function it is given, as caches do
        self._from_inside = _blocks(strategies)[::-1]
        self._chains: dict[colour.Kind, Chains[Callable[..., Any]]] = {"async": Chains(), "sync": Chains()}
        if name is not None:
            _named.add(self)

    @overload
    def __call__(self: Pipeline[Kept], fn: F) -> F: ...
    @overload
    def __call__(self: Pipeline[Widened], fn: Callable[..., Any]) -> Callable[..., Any]: ...
    def __call__(self, fn: Any) -> Any:
        """Return `fn` guarded by these strategies, outside of those it may already have."""
        return decorate(self, fn)

    @overload
    async def call(self: Pipeline[Kept], fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def call(self: Pipeline[Widened], fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...
    async def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Await `fn(*args, **kwargs)` through the pipeline; `fn` may be any callable that returns an awaitable."""
        return await (self._chains["async"].get(fn) or self._entry(fn, "async"))(*args, **kwargs)

    @overload
    def call_sync(self: Pipeline[Kept], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call_sync(self: Pipeline[Widened], fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...
    def call_sync(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return `fn(*args, **kwargs)`, called through the pipeline."""
        return (self._chains["sync"].get(fn) or self._entry(fn, "sync"))(*args, **kwargs)

    def _entry(self, fn: Callable[..., Any], kind: colour.Kind) -> Callable[..., Any]:
        """Build the drivers around a function that is called through the pipeline, and keep them while it lives."""
        if not callable(fn):
            raise TypeError(f"a pipeline calls a function: pipeline.call(fn, ...), got {fn!r}; leave its call to us")
        hidden = colour.kind_of(fn) != "async"
        if kind == "sync" and not hidden:
            raise TypeError(
                f"{colour.name_of(fn)} is async, and call_sync awaits nothing: await pipeline.call(fn, ...)"
            )
        target = None if self._keeps else self._chains[kind].target(fn)
        if target is not None:
            site = Site(self, target)
            chain = self._around(target.caller(), kind, site, hidden=hidden)
            if not site.asked:
                self._chains[kind].keep(fn, target, chain)
                return chain
            self._keeps = True  # a chain that is kept would keep the function, and its object, alive
        return self._around(fn, kind, Site(self, fn), hidden=hidden)

    def _around(self, fn: Callable[..., Any], kind: colour.Kind, site: Site, *, hidden: bool) -> Callable[..., Any]:
        call = colour.awaiting(fn) if kind == "async" and hidden else fn
        return self.build(_opening(call, kind, self), kind, site)

    def build(self, fn: Callable[..., Any], kind: colour.Kind, site: Site) -> Callable[..., Any]:
        """Wrap `fn` in the drivers of the strategies, innermost first."""
        site.kind = kind
        call = colour.refusing_awaitables(fn) if kind == "sync" else fn
        for block in self._from_inside:
            call = block[0].wrap_block(block, call, kind, site)
        return call

    def __iter__(self) -> Iterator[AnyStrategy]:
        return iter(self._strategies)

    def __len__(self) -> int:
        return len(self._strategies)

    def __getitem__(self, kind: type[S]) -> S:
        """Return the first strategy of a class, outermost first: `pipeline_of(fn)[CacheResult]`.

        Raises KeyError if there is none, TypeError for what is no class.
        """
        have = ", ".join(type(strategy).__name__ for strategy in self._strategies) or "nothing"
        if not isinstance(cast("object", kind), type):
            message = f"a strategy is found by its class in asyncguard.strategies, got {kind!r}; it has: {have}"
            raise TypeError(message)
        for strategy in self._strategies:
            if isinstance(strategy, kind):
                return cast("S", strategy.in_pipeline(self))
        message = f"no {kind.__name__} in this pipeline, it has: {have}"
        raise KeyError(message)

    def explain(self) -> str:
        """Say in words what runs in which order, why there, and what looks harmful."""
        lines = [f"{self.label or 'pipeline'}, outermost first:"]
        for number, strategy in enumerate(self._strategies, 1):
            lines.append(f"  {number}. {_title(strategy)}: {reason_at(self._strategies, number - 1)}")
        lines.extend(f"  ! {misplaced}" for misplaced in harmful_pairs(self._strategies))
        return "\n".join(lines)

    def __repr__(self) -> str:
        inside = ", ".join(strategy.name for strategy in self._strategies)
        return f"<Pipeline {self.label or ''}[{inside}]>"


def _title(strategy: AnyStrategy) -> str:
    """Return the kind of a strategy, with its name if it has one of its own: a name alone may say nothing."""
    return strategy.kind if strategy.name == strategy.kind else f"{strategy.kind} {strategy.name!r}"


def _check(strategies: tuple[object, ...]) -> None:
    for each in strategies:
        if not isinstance(each, Strategy):
            name = getattr(each, "__name__", "retry")
            raise TypeError(
                f"a pipeline is made of strategies, got {each!r}; call the factory: {name}(...), not {name}"
            )


def _blocks(strategies: tuple[AnyStrategy, ...]) -> list[list[AnyStrategy]]:
    """Group neighbours that share a driver; every other strategy is a block of its own."""
    numbered = itertools.groupby(enumerate(strategies), key=lambda pair: "joined" if pair[1].joins else pair[0])
    return [[strategy for _, strategy in group] for _, group in numbered]


@overload
def guard(  # type: ignore[overload-overlap] # the narrower case comes first, and says more
    *strategies: Transparent[Any, Any],
    name: str | None = None,
    partition: PartitionBy | None = None,
    stream: bool = False,
) -> Pipeline[Kept]: ...
@overload
def guard(
    *strategies: AnyStrategy,
    name: str | None = None,
    partition: PartitionBy | None = None,
    stream: bool = False,
) -> Pipeline[Widened]: ...
def guard(
    *strategies: AnyStrategy,
    name: str | None = None,
    partition: PartitionBy | None = None,
    stream: bool = False,
) -> Pipeline[Any]:
    """Return a pipeline of these strategies in the canonical order, whatever order they are given in.

    The order and its reasons: `pipeline.explain()`, and the page "Order".
    """
    _check(strategies)
    ordered = sorted(strategies, key=lambda strategy: strategy.place)
    return Pipeline(*ordered, name=name, partition=partition, stream=stream)


class GuardRecord:
    """What a guarded function carries. It is believed only if `wrapper` is the function itself.

    `functools.wraps` copies attributes, so a foreign decorator around a guarded function carries a copy of the record;
    growing the pipeline from it would silently drop that decorator.
    """

    __slots__ = ("kind", "original", "pipeline", "site", "wrapper")

    def __init__(self, wrapper: Any, original: Any, kind: colour.Kind, site: Site) -> None:
        self.wrapper = wrapper
        self.original = original
        self.kind = kind
        self.site = site
        self.pipeline = site.pipeline


def record_of(fn: Any) -> GuardRecord | None:
    """Return the record of a guarded function or of a method bound to one, None if it is not guarded."""
    target = getattr(fn, "__func__", fn)
    record = getattr(target, "__asyncguard__", None)
    return record if isinstance(record, GuardRecord) and record.wrapper is target else None


def pipeline_of(fn: Callable[..., Any]) -> Pipeline:
    """Return the pipeline of a guarded function or method: iterable, `[CacheResult]` finds a strategy.

    Raises TypeError if `fn` is not guarded, or if a foreign decorator stands outside of the guards.
    """
    record = record_of(fn)
    if record is None:
        message = f"{colour.name_of(fn)} is not guarded by asyncguard (or another decorator stands outside of it)"
        raise TypeError(message)
    return record.pipeline


def decorate(outer: Pipeline, fn: F) -> F:
    """Guard `fn`: a function, method, classmethod, staticmethod, partial or callable object."""
    target: Any = fn
    if isinstance(target, staticmethod | classmethod):
        inner: Any = target.__func__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return type(target)(decorate(outer, inner))  # type: ignore[return-value] # pyright: ignore[reportUnknownVariableType, reportReturnType]
    if not callable(target) or inspect.isclass(target):
        raise _undecorable(outer, target)
    return cast("F", _guarded(outer, target))


def _undecorable(outer: Pipeline, target: object) -> TypeError:
    """Return the error for something that is no function; often it is the argument of one that was lost."""
    if isinstance(target, property):
        advice = "put @property outside of the guards"
    elif callable(target):
        advice = "guard the methods of a class, or call through a pipeline: guard(...).call(obj.method, ...)"
    else:
        kind = next((strategy.kind for strategy in outer), "guard")
        advice = f"if it was meant for a function under @{kind}, that decorator lacks its parentheses: @{kind}(...)"
    return TypeError(f"asyncguard decorates functions and methods, got {target!r}; {advice}")


def _guarded(outer: Pipeline, fn: Any) -> Any:
    record = record_of(fn)
    original, pipeline = fn, outer
    if record is not None:
        original = MethodType(record.original, fn.__self__) if inspect.ismethod(fn) else record.original
        inner = record.pipeline
        pipeline = Pipeline(
            *outer,
            *inner,
            name=outer.name or inner.name,
            partition=outer.partition or inner.partition,
            stream=outer.stream or inner.stream,
        )
    kind = colour.kind_of(original)
    site = Site(pipeline, original)
    _warn_about_order(outer, site)
    wrapper = pipeline.build(_opening(original, kind, pipeline), kind, site)
    if wrapper is original:  # an empty pipeline
        return original
    functools.update_wrapper(wrapper, fn)
    wrapper.__wrapped__ = original  # type: ignore[attr-defined]
    wrapper.__asyncguard__ = GuardRecord(wrapper, original, kind, site)  # type: ignore[attr-defined]
    return wrapper


def _opening(fn: Callable[..., Any], kind: colour.Kind, pipeline: Pipeline) -> Callable[..., Any]:
    return streams.opening(fn) if pipeline.stream and kind == "async" else fn


def _warn_about_order(outer: Pipeline, site: Site) -> None:
    """Warn of harmful pairs that the strategies now added make with those inside; older pairs were warned of."""
    new = len(outer)
    for misplaced in harmful_pairs(tuple(site.pipeline)):
        if misplaced.outer < new:
            warnings.warn(f"{site.name}: {misplaced}", Misplaced.Warning, stacklevel=callers.stacklevel())


def sites_of(strategy: AnyStrategy) -> list[Site]:
    """Return the functions that a strategy guards."""
    return [site for site in everything(_sites) if any(each is strategy for each in site.pipeline)]


def in_use() -> list[tuple[str, Pipeline]]:
    """Return the pipelines in use with the names under which they are, for `status()`."""
    sites = [(site.name, site.pipeline) for site in everything(_sites)]
    return sites + [(each.label or "", each) for each in everything(_named)]
