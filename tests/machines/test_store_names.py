"""Names of functions in a store: no two functions that differ can have one."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
import types

import pytest

from asyncguard._machines.store_names import NamelessError, known_name, store_name


def function():
    pass


def factory(number):
    def closure():
        return number

    return closure


class Service:
    def method(self):
        pass

    @classmethod
    def make(cls):
        pass

    @staticmethod
    def help():
        pass

    def __call__(self):
        pass


class Tenant:
    def __cache_key__(self):
        return 1

    def method(self):
        pass


@pytest.mark.parametrize(
    ("named", "name"),
    [
        (function, "function"),
        (Service.method, "Service.method"),
        (Service.make, "Service.make"),
        (Service.help, "Service.help"),
        (Tenant().method, "Tenant.method"),
    ],
)
def test_a_function_of_a_module_is_called_by_module_and_qualified_name(named, name):
    assert store_name(named) == f"{__name__}.{name}"


def test_functions_of_the_standard_library_have_their_names():
    assert store_name(json.dumps) == "json.dumps"
    assert store_name(math.sqrt) == "math.sqrt"


@pytest.mark.parametrize(
    ("nameless", "why", "remedy"),
    [
        (lambda: None, "a lambda", "`def` at the top level"),
        (factory(1), r"factory.<locals>.closure is local", "top level"),
        (factory(2), r"each call of factory\(\) makes another one", "as arguments"),
        (functools.partial(function), "functools.partial has no name", "define a function"),
        (Service().method, "is bound to one Service", "give Service a method __cache_key__"),
        (Service(), "an object of class Service", "decorate a function"),
        ([].append, "builtin_function_or_method", "decorate a function"),
    ],
)
def test_what_shares_its_name_with_something_else_is_refused_with_what_to_do(nameless, why, remedy):
    with pytest.raises(NamelessError, match=f"{why}.*a store could not tell it from another one: .*{remedy}"):
        store_name(nameless)


def test_a_function_of_no_module_is_refused():
    nowhere = types.FunctionType(function.__code__, {}, "nowhere")
    nowhere.__module__ = None
    with pytest.raises(NamelessError, match="belongs to no module"):
        store_name(nowhere)


PROGRAM = """
from asyncguard._machines.store_names import store_name
def f(): pass
try: print(store_name(f))
except TypeError as error: print(error)
"""


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def program(tmp_path, monkeypatch):
    import asyncguard

    monkeypatch.setenv("PYTHONPATH", str(next(iter(asyncguard.__path__)) + "/.."))
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def test_a_function_of_a_script_is_refused_and_of_a_module_that_is_run_has_the_modules_name(program):
    assert "f is defined in __main__, which is another module in every program" in run(program, "program.py")
    assert run(program, "-m", "program") == "program.f"
    assert run(program, "-c", "import program") == "program.f"


def test_a_script_under_a_profiler_is_not_taken_for_the_profiler(program):
    assert "f is defined in __main__" in run(program, "-m", "cProfile", "program.py")


def test_a_name_is_only_known_if_the_module_has_the_same_thing_under_it():
    assert known_name(Service) == f"{__name__}.Service"
    assert known_name(types.FunctionType) == "builtins.function"
    assert known_name(type(None)) == "builtins.NoneType"
    made = type("Service", (), {"__module__": __name__})
    with pytest.raises(NamelessError, match=r"is not what its module has under that name.*once"):
        known_name(made)


def test_a_class_that_the_standard_library_moved_keeps_its_name():
    import pathlib

    assert known_name(pathlib.PurePosixPath) == "pathlib.PurePosixPath"
