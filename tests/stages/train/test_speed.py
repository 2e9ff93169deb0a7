"""The speed of a training: a long one borrows cores while they help, a short one never does. The seconds are made up."""

import contextlib

import pytest
import torch

from autocut.stages.train import Speed, sample_seconds, train_model


class Cores:
    """A loan of which every core is free, up to `free` threads; `renewed` counts how often it was asked."""

    def __init__(self, free=2):
        self.free = free
        self.threads = torch.get_num_threads()
        self.renewed = 0

    def renew(self, most=None):
        """Take what is allowed."""
        self.renewed += 1
        self.threads = self.free if most is None else min(self.free, most)
        return self.threads

    def close(self):
        """Give everything back."""
        self.threads = torch.get_num_threads()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Torch has one thread, and cores may be asked for before every batch."""
    monkeypatch.setattr("autocut.stages.train.speed._RENEW_S", -1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(speed, loan, seconds, batches):
    """Tell `speed` of batches of 10 samples; `seconds(threads)` is what each takes."""
    for _ in range(batches):
        speed.before_batch()
        speed.after_batch(10, seconds(loan.threads))


def test_a_short_training_borrows_nothing():
    """Its weights stay the same to the last bit."""
    loan = Cores()
    speed = Speed(loan)
    with speed.watching(200):
        train(speed, loan, lambda _: 0.9, 20)  # 18 s
    assert loan.renewed == 0
    assert speed.borrowed_s == 0.0


def test_a_slow_first_batch_makes_no_training_long():
    """The first batch allocates and compiles: the median decides."""
    loan = Cores()
    speed = Speed(loan)
    with speed.watching(1000):
        speed.after_batch(10, 5.0)
        train(speed, loan, lambda _: 0.01, 99)
    assert loan.renewed == 0


def test_a_long_training_borrows_what_is_free_and_gives_it_back():
    """The borrowed seconds are counted, one for each core more."""
    loan = Cores(free=3)
    speed = Speed(loan)
    with speed.watching(10_000):
        train(speed, loan, lambda threads: 1.0 / threads, 40)
        assert loan.threads == 3
    assert loan.threads == 1
    assert speed.borrowed_s > 10.0
    assert speed.borrowed_s == pytest.approx(speed.saved_s)  # three cores are three times as fast in this test


def test_threads_that_do_not_help_are_given_back():
    """A small model is no faster on two cores: the second one is left to others."""
    loan = Cores(free=8)
    speed = Speed(loan)
    with speed.watching(10_000):
        train(speed, loan, lambda _: 1.0, 60)
        assert loan.threads == 1


def test_the_most_threads_that_help_are_kept():
    """Four threads are faster than two, eight are not: it ends with four."""
    loan = Cores(free=8)
    speed = Speed(loan)
    with speed.watching(10_000):
        train(speed, loan, lambda threads: 1.0 / min(threads, 4), 100)
        assert loan.threads == 4


def test_a_long_training_tells_how_long_it_will_take():
    """The prediction is told once it is known, not at every batch."""
    told = []
    speed = Speed(tell=told.append)
    with speed.watching(1000):
        train(speed, Cores(), lambda _: 1.0, 50)
    assert told == [pytest.approx(97.0)]


def test_a_watched_training_gives_the_same_weights(task):
    """Watching alone changes nothing, and the cores are given back where the training ends by an error."""
    model, loan = task.build_model(), Cores()
    plain = train_model(model, task, {"train.epochs": 2}).model
    watched = train_model(model, task, {"train.epochs": 2}, speed=Speed(loan)).model

    torch.testing.assert_close(plain.state_dict(), watched.state_dict(), rtol=0, atol=0)
    assert loan.renewed == 0
    with contextlib.suppress(ZeroDivisionError), Speed(loan).watching(10):
        loan.renew()
        raise ZeroDivisionError
    assert loan.threads == 1


def test_the_seconds_of_a_sample_are_timed_on_a_copy(task):
    """Neither the model nor the global random state changes, and a short training is timed without other cores."""
    model, loan, state = task.build_model(), Cores(), torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert sample_seconds(model, task, loan=loan) > 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loan.renewed == 0
