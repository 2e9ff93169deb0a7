"""Turns the error of an action on a recipe into the outcome of the recipe."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from autocut import errors
from autocut.recipe import Recipe
from autocut.search.jobs import RecipeFailed


def catch_failure(recipe: Recipe, action: Callable[[], object]) -> RecipeFailed | None:
    """Run `action`. Return how `recipe` failed by it, or None if it did not fail.

    Raises:
        InputError: something that no other recipe would survive either, such as a full disk.
    """
    try:
        action()
    except errors.DeadlineError as error:
        return RecipeFailed(recipe, "interrupted", error.message)
    except errors.StoppedEarlyError as error:
        return RecipeFailed(recipe, "stopped", error.message)
    except (errors.InfeasibleRecipeError, errors.MissingDependencyError) as error:
        return RecipeFailed(recipe, "infeasible", error.message)
    except errors.TrialError as error:
        return RecipeFailed(recipe, "failed", f"{type(error).__name__}: {error.message}")
    except (errors.BundleError, errors.VerificationError) as error:
        return RecipeFailed(recipe, "failed", error.message)
    except MemoryError:
        return RecipeFailed(recipe, "failed", errors.OutOfMemoryError("the worker process ran out of memory").message)
    except errors.InputError:
        raise
    except Exception as error:
        # The model is the user's and the libraries are young: an unexpected error is reported as a bug, and ends one trial alone.
        return RecipeFailed(recipe, "bug", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return None
