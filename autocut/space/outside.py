"""Recipes from outside: files of the user, bundles and studies, which a stranger may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autocut.errors import quoted
from autocut.recipe import Recipe
from autocut.space.axes import RULES
from autocut.space.checks import is_number


def checked_recipe(settings: Any) -> Recipe:
    """Return the recipe of `settings`, which may be of another version: unknown settings and names of methods stay as they are.

    Raises:
        ValueError: It is no table, a number is no finite number, or a name is none.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"recipe must be a table of settings, got {type(settings).__name__}")
    for name, value in settings.items():
        if reason := why_no_setting(name, value):
            raise ValueError(reason)
    return Recipe(settings)


def why_no_setting(name: str, value: object) -> str | None:
    """Say why `value` cannot stand for the setting `name` in any recipe; None where it can."""
    rule = RULES.get(name)
    if rule is None or isinstance(value, bool):
        known = rule is None and isinstance(value, str | int | float | bool)
        return None if known else f"{name} must be a name or a number, got {quoted(value)}"
    if rule.takes_names:
        return None if isinstance(value, str) else f"{name} must be a name, got {quoted(value)}"
    return None if is_number(value, rule) else f"{name} must be {rule.describe()}, got {quoted(value)}"
