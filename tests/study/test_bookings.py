"""Bookings: one recipe belongs to one search at most."""

import threading

import pytest
import sqlalchemy

from autocut.errors import StudyError
from autocut.recipe import Recipe

RECIPES = [Recipe({"prune.method": "structured", "prune.ratio": ratio / 10}) for ratio in range(1, 7)]


@pytest.fixture
def study(make_study):
    """A study with two sessions."""
    made = make_study()
    made.begin_session("autocut search", {})
    made.begin_session("autocut search", {})
    return made


def test_a_recipe_goes_to_the_search_that_books_it_first(study):
    """The same search may book it again."""
    assert study.bookings.take(RECIPES[:3], 1, "PROPOSAL") == RECIPES[:3]
    assert study.bookings.take(RECIPES[2:5], 2, "ANCHOR") == RECIPES[3:5]
    assert study.bookings.take(RECIPES[:2], 1, "PROPOSAL") == RECIPES[:2]
    assert {(booking.recipe, booking.session, booking.purpose) for booking in study.bookings.all()} == {
        *((recipe, 1, "PROPOSAL") for recipe in RECIPES[:3]),
        *((recipe, 2, "ANCHOR") for recipe in RECIPES[3:5]),
    }


def test_only_its_search_frees_a_booking(study):
    """Whoever frees what another search works on would have it tried twice."""
    study.bookings.take(RECIPES[:2], 1, "PROPOSAL")
    study.bookings.free(RECIPES[:2], 2)
    assert len(study.bookings.all()) == 2

    study.bookings.free(RECIPES[:1], 1)
    assert study.bookings.take(RECIPES[:2], 2, "PROPOSAL") == RECIPES[:1]


def test_the_bookings_of_dead_searches_are_freed(study):
    """Those of the others stay."""
    study.bookings.take(RECIPES[:2], 1, "PROPOSAL")
    study.bookings.take(RECIPES[2:], 2, "PROPOSAL")
    study.bookings.keep_those_of([2])

    assert {booking.session for booking in study.bookings.all()} == {2}


def test_a_booking_of_a_stranger_is_reported_as_damage(study):
    """What lies in the database may have been written by anyone."""
    study.bookings.take(RECIPES[:1], 1, "PROPOSAL")
    with study._database.begin() as database:
        database.execute(sqlalchemy.text("UPDATE autocut_booking SET recipe = '{\"prune.ratio\": '"))

    with pytest.raises(StudyError, match="damaged database"):
        study.bookings.all()


def test_threads_that_book_at_the_same_moment_share_the_recipes(study):
    """The database decides, whatever the order is in which they ask."""
    taken = {}

    def take(session):
        taken[session] = [recipe for recipe in RECIPES if study.bookings.take([recipe], session, "PROPOSAL")]

    threads = [threading.Thread(target=take, args=(session,)) for session in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken[1] + taken[2], key=RECIPES.index) == RECIPES
