"""validate_input: async, sync and generators; rules by keyword, by mapping and from hints; raise, fallback, observe."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import inspect
import pickle
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import annotated_types
import cloudpickle
import numpy as np
import pydantic
import pytest

from asyncguard import InputValidationError, Pipeline, guard, pipeline_of, testing
from asyncguard.events import InputRejected
from asyncguard.strategies.fallback import fallback
from asyncguard.strategies.validate_input import Array, Keys, ValidateInput, validate_input

if TYPE_CHECKING:
    from collections.abc import Sequence

GOOD = np.zeros((4, 3), "float32")
BAD = np.zeros((4, 2), "float32")
RULE = Array(("batch", 3), "float32", finite=True)


class User(pydantic.BaseModel):
    name: str
    age: int = 0


def run(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    async def main() -> Any:
        return await fn(*args, **kwargs)

    return asyncio.run(main())


# --- raise ------------------------------------------------------------------------------------------------------------


def test_async_on_both_libraries(backend: Literal["asyncio", "trio"]) -> None:
    @validate_input(x=RULE)
    async def embed(x: object) -> int:
        return 1

    async def main() -> None:
        assert await embed(GOOD) == 1
        assert await embed(x=GOOD) == 1
        with pytest.raises(InputValidationError, match=r"embed\(x\): shape: expected \(batch, 3\), got \(4, 2\)"):
            await embed(BAD)

    testing.run(main, backend=backend)
    asyncio.run(main())


def test_sync() -> None:
    @validate_input(x=RULE, meta=Keys("user_id"))
    def predict(x: object, meta: object = None) -> int:
        return 1

    assert predict(GOOD) == 1
    assert predict(GOOD, {"user_id": 1}) == 1
    with pytest.raises(InputValidationError) as caught:
        predict(BAD, meta={})
    assert [f"{each.parameter}:{each.rule}" for each in caught.value.violations] == ["x:shape", "meta:keys"]
    assert caught.value.function.endswith("predict")
    assert caught.value.strategy == "validate_input"


def test_the_function_is_not_called_with_bad_input() -> None:
    calls: list[object] = []

    @validate_input(x=RULE)
    async def embed(x: object) -> None:
        calls.append(x)

    with pytest.raises(InputValidationError):
        run(embed, BAD)
    assert not calls


def test_a_wrong_call_is_pythons_own_error() -> None:
    @validate_input(x=RULE)
    async def embed(x: object) -> None: ...

    for args, kwargs in [((), {}), ((GOOD, GOOD), {}), ((), {"y": GOOD})]:
        with pytest.raises(TypeError, match="embed"):
            run(embed, *args, **kwargs)


def test_methods_of_every_kind_partials_and_callable_objects() -> None:
    class Model:
        @validate_input(x=RULE)
        async def method(self, x: object) -> object:
            return self

        @validate_input(x=RULE)
        @classmethod
        def class_method(cls, x: object) -> object:
            return cls

        @staticmethod
        @validate_input(x=RULE)
        def static_method(x: object) -> int:
            return 1

        def __call__(self, flag: int, x: object) -> int:
            return flag

    model = Model()
    assert run(model.method, GOOD) is model
    assert model.class_method(GOOD) is Model
    assert model.static_method(GOOD) == 1
    for call in (model.class_method, model.static_method):
        with pytest.raises(InputValidationError):
            call(BAD)
    with pytest.raises(InputValidationError, match=r"Model\.method\(x\)"):
        run(model.method, BAD)
    checked = validate_input(x=RULE)(functools.partial(model, 7))
    assert checked(GOOD) == 7
    with pytest.raises(InputValidationError, match=r"Model\(x\)"):
        checked(BAD)


def test_the_function_stays_what_it_was() -> None:
    @validate_input(x=RULE)
    async def embed(x: object, *, flag: bool = False) -> int:
        """Embeds."""
        return 1

    assert inspect.iscoroutinefunction(embed)
    assert str(inspect.signature(embed)) == "(x: 'object', *, flag: 'bool' = False) -> 'int'"
    assert embed.__doc__ == "Embeds."
    assert isinstance(pipeline_of(embed)[ValidateInput], ValidateInput)


def test_an_input_error_of_the_function_itself_is_not_answered() -> None:
    @validate_input(x=int, fallback=0)
    def inner(x: int) -> int:
        raise InputValidationError("mine")

    with pytest.raises(InputValidationError, match="mine"):
        inner(1)


def test_no_argument_is_kept_alive_by_an_error_that_was_handled() -> None:
    class Big:
        shape, dtype = (1,), np.dtype("float32")

    @validate_input(x=RULE)
    def embed(x: object) -> None: ...

    big = Big()
    alive = weakref.ref(big)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(InputValidationError) as caught:
            embed(big)
        del big, caught
        assert alive() is None
    finally:
        gc.enable()


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_are_checked_with_the_dimensions_of_the_arguments() -> None:
    @validate_input(x=Array(("batch", 3)), returns=Array(("batch", 2)))
    async def embed(x: np.ndarray, size: int) -> np.ndarray:
        return np.zeros((size, 2))

    assert run(embed, GOOD, 4).shape == (4, 2)
    with pytest.raises(InputValidationError, match=r"embed\(return\): shape: expected \(batch, 2\) with batch = 4"):
        run(embed, GOOD, 5)


def test_a_converted_result_is_passed_on_and_a_wrong_one_raises() -> None:
    @validate_input(returns=User)
    def load(found: object) -> Any:
        return found

    assert load({"name": "Ada", "age": "36"}) == User(name="Ada", age=36)
    with pytest.raises(InputValidationError, match=r"load\(return\['name'\]\): missing"):
        load({})


# --- pydantic and hints -----------------------------------------------------------------------------------------------


def test_converted_values_are_passed_on_wherever_they_were_given() -> None:
    @validate_input(user=User, count=int)
    async def greet(user: Any, count: Any = "default", *, more: Any = None) -> tuple[Any, ...]:
        return user, count, more

    ada = {"name": "Ada"}
    assert run(greet, ada) == (User(name="Ada"), "default", None)
    assert run(greet, ada, "3", more=1) == (User(name="Ada"), 3, 1)
    assert run(greet, count="3", user=ada) == (User(name="Ada"), 3, None)


def test_rules_from_the_hints() -> None:
    @validate_input
    async def embed(
        texts: Annotated[list[str], annotated_types.Len(1, 3)],
        vectors: Annotated[np.ndarray, Array(("batch", 3), "float32")],
        mode: Literal["fast", "good"] = "fast",
        user: User | None = None,
        rest: Any = None,
        plain=None,
    ) -> Any:
        return user

    assert run(embed, ["a"], GOOD, user={"name": "Ada"}) == User(name="Ada")
    with pytest.raises(InputValidationError) as caught:
        run(embed, ["a", 1], [BAD], "slow", {"age": "x"}, object(), object())
    assert [f"{each.parameter}{each.path}: {each.rule}" for each in caught.value.violations] == [
        "texts[1]: string_type",
        "vectors: type",
        "mode: literal_error",
        "user['name']: missing",
        "user['age']: int_parsing",
    ]


def test_a_hint_means_the_same_as_the_rule_by_keyword() -> None:
    @validate_input
    def hinted(count: Annotated[int, annotated_types.Ge(1)], scale: float) -> tuple[Any, ...]:
        return count, scale

    @validate_input(count=Annotated[int, annotated_types.Ge(1)], scale=float)
    def given(count: Any, scale: Any) -> tuple[Any, ...]:
        return count, scale

    for function in (hinted, given):
        assert function("2", np.float32(0.5)) == (2, 0.5)
        with pytest.raises(InputValidationError, match=r"\(count\): greater_than_equal: expected greater than"):
            function(0, 1)


@dataclasses.dataclass
class Late:
    """Used before it is defined."""

    @validate_input
    def join(self, other: Late, texts: Sequence[str] = ()) -> int:
        return len(texts)


def test_a_forward_reference_is_resolved_at_the_first_call() -> None:
    with pytest.warns(UserWarning, match=r"hint of Late\.join\(texts\) cannot be used \(NameError"):
        assert Late().join(Late(), "ab") == 2  # type: ignore[arg-type]
    with pytest.raises(InputValidationError, match=r"Late\.join\(other\)"):
        Late().join(3)  # type: ignore[arg-type]
    assert Late().join(Late(), ["a"]) == 1  # the warning comes once


def test_a_hint_from_an_enclosing_function() -> None:
    class Local(pydantic.BaseModel):
        size: int

    @validate_input
    def use(it: Local) -> int:
        return Local.model_validate(it).size

    assert use({"size": 3}) == 3  # type: ignore[arg-type]


def test_a_hint_that_pydantic_cannot_handle_is_left_out_with_a_warning() -> None:
    class Odd:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: object) -> Any:
            raise RuntimeError

    @validate_input
    def use(a: Odd, b: int) -> int:
        assert Odd
        return b

    with pytest.warns(UserWarning, match=r"use\(a\) cannot be used"):
        assert use(1, "3") == 3  # type: ignore[arg-type]


def test_iterators_and_callables_in_hints_do_not_get_in_the_way() -> None:
    @validate_input
    def use(
        a: Iterator[str], b: AsyncIterator[str] | None, c: Callable[[int], int], *rest: int, **more: int
    ) -> list[str]:
        return list(a)

    assert use(iter(["x"]), None, abs, "not checked", more="not checked") == ["x"]  # type: ignore[arg-type]


def test_a_function_without_hints_is_called_as_it_is() -> None:
    @validate_input
    def use(a, b=2):
        return a, b

    assert use(1) == (1, 2)


SECRET = "4111-secret-anna@example.org"


def quoting(value: str) -> str:
    raise ValueError(value)


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (int, SECRET),
        (dict[str, int], {SECRET: "x"}),
        (User, {"name": 1, "age": SECRET, SECRET: 2}),
        (Annotated[str, pydantic.AfterValidator(quoting)], SECRET),
        (Literal["a"], SECRET),
        (Keys("a"), {SECRET: 1}),
        (quoting, SECRET),
        (annotated_types.MaxLen(3), SECRET),
        (annotated_types.Predicate(str.isdigit), SECRET),
        (Annotated[User | int, pydantic.Field(union_mode="left_to_right")], {"name": SECRET, "age": SECRET}),
        (pydantic.TypeAdapter(pydantic.Json[int]), SECRET),
        (pydantic.UUID4, SECRET),
        (Array(ge=0), np.array([-4111.0])),
    ],
    ids=str,
)
def test_the_value_is_nowhere_in_the_error_or_its_traceback(spec: object, value: object) -> None:
    @validate_input(x=spec)
    def use(x: object) -> None: ...

    with pytest.raises(InputValidationError) as caught:
        use(value)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.violations)
    assert "4111" not in shown
    assert "secret" not in shown


@pytest.mark.parametrize("spec", ["User", 3, None, b"x", ...])
def test_what_is_no_rule_is_refused_at_decoration(spec: object) -> None:
    with pytest.raises(TypeError, match="a rule must be"):
        validate_input(x=spec)


def test_an_unknown_parameter_is_refused_at_decoration() -> None:
    async def embed(x: object, **more: object) -> None: ...

    with pytest.raises(TypeError, match=r"embed has no parameter 'y'; it has: x, more"):
        validate_input(y=RULE)(embed)
    with pytest.raises(TypeError, match=r"rules must be a mapping"):
        validate_input(3, returns=int)  # type: ignore[call-overload]


def test_parameters_that_are_called_like_an_option() -> None:
    @validate_input({"name": str, "fallback": int}, mode="enforce")
    def use(name: str, fallback: int) -> tuple[str, int]:
        return name, fallback

    assert use("a", 1) == ("a", 1)
    with pytest.raises(InputValidationError, match=r"use\(name\)"):
        use(1, 1)  # type: ignore[arg-type]


# --- fallback ---------------------------------------------------------------------------------------------------------


def test_a_fallback_value_answers_bad_input() -> None:
    empty: list[float] = []

    @validate_input(x=RULE, fallback=empty)
    async def embed(x: object) -> list[float]:
        return [1.0]

    assert run(embed, GOOD) == [1.0]
    with testing.record_events() as events:
        assert run(embed, BAD) is empty
    (event,) = events.of(InputRejected)
    assert (event.action, event.rules, event.strategy) == ("fallback", ("x:shape",), "validate_input")


def test_none_is_a_fallback() -> None:
    assert validate_input(x=int, fallback=None)(lambda x: x)("no") is None


def test_handlers_get_the_error_and_the_arguments_as_they_came() -> None:
    def handler(error: Exception, *args: object, **kwargs: object) -> object:
        return type(error), args, kwargs

    async def handler_async(error: Exception, *args: object, **kwargs: object) -> object:
        return handler(error, *args, **kwargs)

    for each in (handler, handler_async):
        checked = validate_input(x=int, y=int, fallback=each)(_async_pair)
        assert run(checked, "1", y="no") == (InputValidationError, ("1",), {"y": "no"})
    assert validate_input(x=int, y=int, fallback=handler)(_pair)("1", "no") == (InputValidationError, ("1", "no"), {})


def _pair(x: object, y: object) -> object:
    return x, y


async def _async_pair(x: object, y: object) -> object:
    return x, y


def test_the_failure_of_a_handler_comes_from_the_input_error() -> None:
    def handler(error: Exception, x: object) -> None:
        raise KeyError(1)

    for function in (lambda x: x, _identity):
        with pytest.raises(KeyError) as caught:
            result = validate_input(x=int, fallback=handler)(function)("no")
            if inspect.iscoroutine(result):
                asyncio.run(result)
        assert isinstance(caught.value.__cause__, InputValidationError)


async def _identity(x: object) -> object:
    return x


def test_a_bad_result_is_answered_too() -> None:
    assert validate_input(returns=int, fallback=0)(lambda: "no")() == 0


def test_an_async_handler_of_a_sync_function_is_refused() -> None:
    with pytest.raises(TypeError, match="is async, but the function is sync"):
        validate_input(x=int, fallback=_async_pair)(_pair)


# --- modes ------------------------------------------------------------------------------------------------------------


def test_observe_reports_and_changes_nothing() -> None:
    @validate_input(x=int, y=RULE, returns=int, fallback=0, mode="observe")
    async def use(x: object, y: object) -> object:
        return x

    with testing.record_events() as events:
        assert run(use, "1", BAD) == "1"
        assert run(use, "1", GOOD) == "1"
        assert run(use, "no", GOOD) == "no"
    assert [(each.action, each.rules, each.observed) for each in events.of(InputRejected)] == [
        ("observe", ("y:shape",), True),
        ("observe", ("x:int_parsing",), True),
        ("observe", ("return:int_parsing",), True),
    ]


def test_off_checks_nothing() -> None:
    @validate_input(x=int, returns=int, mode="off")
    def use(x: object) -> object:
        return x

    assert use("no") == "no"


def test_configure_and_override_change_what_runs() -> None:
    strategy = validate_input(x=RULE)
    use = strategy(_identity)
    assert run(use, GOOD) is GOOD
    strategy.configure(rules={"x": Array((None, 2))})
    assert run(use, BAD) is BAD
    with strategy.override(rules={"x": RULE}), pytest.raises(InputValidationError):
        run(use, BAD)
    with strategy.override(mode="off"):
        assert run(use, 3) == 3
    with strategy.override(fallback="answer"):
        assert run(use, 3) == "answer"
    with pytest.raises(InputValidationError):
        run(use, 3)


def test_an_override_of_rules_from_hints_and_back() -> None:
    strategy = validate_input()

    @strategy
    def use(x: int) -> Any:
        return x

    with strategy.override(mode="observe"):
        assert use("3") == "3"  # type: ignore[arg-type]
    assert use("3") == 3  # type: ignore[arg-type]
    with strategy.override(fallback=0):
        assert use("no") == 0  # type: ignore[arg-type]


def test_a_bad_configuration_changes_nothing() -> None:
    strategy = validate_input(x=RULE)
    use = strategy(_identity)
    for changes in ({"rules": {"y": RULE}}, {"rules": {"x": "no rule"}}, {"mode": "maybe"}, {"nonsense": 1}):
        with pytest.raises((TypeError, ValueError)):
            strategy.configure(**changes)
    assert run(use, GOOD) is GOOD
    with pytest.raises(InputValidationError):
        run(use, BAD)


# --- generators -------------------------------------------------------------------------------------------------------


def test_an_async_generator_is_checked_at_the_call_and_stays_one() -> None:
    class Model:
        @validate_input(x=RULE, count=int)
        async def stream(self, x: object, count: Any = 2) -> AsyncIterator[int]:
            for number in range(count):
                yield number

    assert inspect.isasyncgenfunction(Model.stream)
    assert inspect.isasyncgenfunction(Model().stream)
    assert "Model.stream" in repr(Model.stream)
    assert str(inspect.signature(Model().stream)) == "(x: 'object', count: 'Any' = 2) -> 'AsyncIterator[int]'"
    with pytest.raises(InputValidationError, match=r"stream\(x\)"):
        Model().stream(BAD)

    async def main() -> list[int]:
        return [number async for number in Model().stream(GOOD, "3")]

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_generator_too() -> None:
    @validate_input(x=RULE)
    def stream(x: object) -> Iterator[int]:
        yield 1

    assert inspect.isgeneratorfunction(stream)
    assert list(stream(GOOD)) == [1]
    with pytest.raises(InputValidationError):
        stream(BAD)


@pytest.mark.parametrize("options", [{"returns": int}, {"fallback": None}], ids=str)
def test_generators_take_no_fallback_and_no_rule_for_a_result(options: dict[str, Any]) -> None:
    def stream(x: object) -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"takes no returns= and no fallback="):
        validate_input(x=int, **options)(stream)


# --- with others ------------------------------------------------------------------------------------------------------


def test_in_a_pipeline_with_others() -> None:
    use = guard(fallback("failed"), validate_input(x=int))(_identity)
    with pytest.raises(InputValidationError):  # the canonical order: an invalid input is the caller's mistake
        run(use, "no")
    assert run(Pipeline(fallback("failed"), validate_input(x=int))(_identity), "no") == "failed"


def test_through_a_pipeline_without_a_decorator() -> None:
    async def main() -> None:
        assert await guard(validate_input(x=int)).call(_identity, x="3") == 3
        with pytest.raises(InputValidationError):
            await guard(validate_input(x=int)).call(_identity, "no")

    asyncio.run(main())


def test_a_strategy_pickles_as_its_options() -> None:
    strategy = validate_input(x=RULE, user=User, name="v", fallback=None)
    copy = pickle.loads(pickle.dumps(strategy))
    assert copy.name == "v"
    assert copy(lambda x, user: user)(GOOD, {"name": "Ada"}) == User(name="Ada")
    assert copy(lambda x, user: user)(BAD, {"name": "Ada"}) is None


def test_a_guarded_function_survives_cloudpickle() -> None:
    @validate_input(x=RULE, user=User)
    def use(x: object, user: Any) -> str:
        return str(user.name)

    copy = cloudpickle.loads(cloudpickle.dumps(use))
    assert copy(GOOD, {"name": "Ada"}) == "Ada"
    with pytest.raises(InputValidationError):
        copy(BAD, {"name": "Ada"})


def test_a_guarded_function_that_is_gone_leaves_nothing_behind() -> None:
    strategy = validate_input(x=RULE)
    strategy(lambda x: x)
    gc.collect()
    assert len(strategy.places) == 0


def test_a_rule_for_a_parameter_called_name_is_told_where_it_goes():
    with pytest.raises(TypeError, match=r'the rule of a parameter "name" goes into \{"name": rule\}'):
        validate_input(name=Keys("first"))


def test_a_rule_for_the_result_alone_leaves_the_hints_in_force():
    @validate_input(returns=float)
    def half(x: Annotated[int, annotated_types.Ge(0)]) -> Any:
        return x / 2 if x != 8 else "four"

    assert half(3) == 1.5
    with pytest.raises(InputValidationError):
        half(-1)
    with pytest.raises(InputValidationError):
        half(8)
