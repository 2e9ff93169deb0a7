"""The registry: one place to add a method."""

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from autocut import registry as registry_module
from autocut.errors import InputError, MissingDependencyError, UnknownNameError
from autocut.registry import PLUG_INS, MethodOptions, Registry, import_all


@dataclass(frozen=True, kw_only=True)
class PrunerOptions(MethodOptions):
    """What a pruner of this test says of itself."""

    kind: str = "unstructured"


@pytest.fixture
def registry():
    """Two methods, one of which needs a package that is not installed."""
    registry = Registry("prune.method", PrunerOptions)

    @registry.register("none")
    def keep(model):
        """Leave the model as it is.

        More words.
        """
        return model

    @registry.register("rare", version=3, requires=("json", "a_module_that_nobody_has"), kind="structured")
    def rare(model):
        return model

    return registry


def test_a_registered_function_is_found_by_its_name(registry):
    """And is still the function itself."""
    assert registry["none"](7) == 7
    assert registry.names() == ("none", "rare")
    assert "none" in registry
    assert "nope" not in registry


def test_a_method_tells_what_lists_and_keys_need(registry):
    """Summary, version, requirements, options."""
    method = registry.method("rare")
    assert (method.axis, method.version, method.options, method.summary) == (
        "prune.method",
        3,
        PrunerOptions(kind="structured"),
        "",
    )
    assert registry.method("none").summary == "Leave the model as it is."
    assert [method.name for method in registry] == ["none", "rare"]


def test_an_option_that_the_axis_does_not_have_is_refused(registry):
    """A misspelt option would do nothing."""
    with pytest.raises(TypeError, match="kin"):
        registry.register("typo", kin="structured")


def test_an_unknown_name_gets_the_nearest_one(registry):
    """Never a fallback."""
    with pytest.raises(UnknownNameError, match=r"prune\.method must be one of none, rare, got 'noen'") as caught:
        registry["noen"]
    assert caught.value.hint == "did you mean 'none'?"


def test_a_missing_library_names_the_command_that_installs_it(registry):
    """It is listed all the same; only using it fails."""
    assert registry.method("rare").missing() == ("a_module_that_nobody_has",)
    with pytest.raises(MissingDependencyError) as caught:
        registry["rare"]
    assert caught.value.hint == "pip install a_module_that_nobody_has"


def test_another_install_command_is_told(registry):
    """Where the package has another name than the module."""
    registry.register("learned", requires=("a_module_that_nobody_has",), install="pip install that-module")(lambda model: model)

    with pytest.raises(MissingDependencyError) as caught:
        registry["learned"]
    assert caught.value.hint == "pip install that-module"


def test_a_plug_in_that_cannot_be_imported_is_told_at_every_look(registry, monkeypatch):
    """Going on without it would say that its methods do not exist."""
    broken = EntryPoint("mine", "a_module_that_nobody_has", PLUG_INS)
    monkeypatch.setattr(registry_module, "plug_ins", lambda: (broken,))

    for look in (registry.names, lambda: registry["none"], lambda: "none" in registry):
        with pytest.raises(InputError, match="plug-in 'mine' must import without an error, got ModuleNotFoundError"):
            look()


def test_a_plug_in_is_imported_once_and_may_ask_a_registry_itself(registry, monkeypatch, tmp_path):
    """Its methods are there from the first answer on."""
    (tmp_path / "a_plug_in.py").write_text("import tests_registry\ntests_registry.register('from_outside')(tests_registry['none'])")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "tests_registry", registry)
    monkeypatch.setattr(registry_module, "plug_ins", lambda: (EntryPoint("mine", "a_plug_in", PLUG_INS),))

    assert registry.names() == registry.names() == ("none", "rare", "from_outside")


def test_a_name_is_taken_once(registry):
    """Two methods of one name would make old stage keys lie."""
    with pytest.raises(ValueError, match="has a method 'none' already"):
        registry.register("none")(lambda model: model)


def test_every_module_below_a_package_is_imported_and_a_broken_one_is_told(tmp_path, monkeypatch):
    """A method that cannot be imported is a bug, not a missing method."""
    package = tmp_path / "a_package_of_methods"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "inner/__init__.py", "inner/two.py"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("a_package_of_methods")
    import_all(module)
    assert {"a_package_of_methods.one", "a_package_of_methods.inner.two"} <= set(sys.modules)
    (package / "broken.py").write_text("import a_module_that_nobody_has")
    with pytest.raises(ModuleNotFoundError):
        import_all(module)
    for name in [name for name in sys.modules if name.startswith("a_package_of_methods")]:
        del sys.modules[name]
