"""NodeSession: silence is death only where echoes were sent, and answered before."""

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.node_session import HASTE, LEAST, SILENT, SLOW, Condition, NodeSession

INTERVAL = 0.05


class Node:
    """A node that answers after ``way`` seconds until it dies; steps come when the session wants them."""

    def __init__(self, way=0.001, stall=0.0):
        self.session = NodeSession(INTERVAL)
        self.way = way
        self.stall = stall
        self.now = 100.0
        self.answers = []
        self.alive = True
        self.sent = 0

    def step(self):
        for item in [item for item in self.answers if item[0] <= self.now]:
            self.answers.remove(item)
            self.session.heard(item[1], self.way)
        step = self.session.step(self.now)
        self.sent += 1
        if self.alive:
            self.answers.append((self.now + self.way, step.sequence))
        self.now += step.wait + self.stall
        return step

    def until_dead(self):
        """Kill it, and return after how many seconds it counts as dead."""
        self.alive = False
        self.answers.clear()
        died = self.now
        while True:
            at = self.now
            if self.step().died:
                return at - died
            assert self.now < died + 10


def test_a_node_that_dies_is_dead_within_four_intervals():
    """Its last echo was answered: from then on it takes one interval to the next, and three more."""
    node = Node()
    for _ in range(40):
        assert not node.step().died
    assert 2 * INTERVAL < node.until_dead() <= 4 * INTERVAL
    assert node.session.condition is Condition.DEAD


def test_a_node_that_has_never_answered_is_not_dead():
    """A firewall may drop echoes; such a node is asked seldom, and no event comes of it."""
    node = Node()
    node.alive = False
    steps = [node.step() for _ in range(50)]
    assert not any(step.died for step in steps)
    assert steps[-1].wait == SLOW


def test_one_that_answers_again_is_back_once():
    """The first answer after its death is news, the next is not."""
    node = Node()
    for _ in range(5):
        node.step()
    node.until_dead()
    first = node.session.step(node.now)
    assert node.session.heard(first.sequence, 0.001)
    second = node.session.step(node.now + 1)
    assert not node.session.heard(second.sequence, 0.001)
    assert node.session.condition is Condition.ALIVE


@given(st.lists(st.floats(0, 60), max_size=40))
def test_who_stands_still_itself_finds_nobody_dead(stalls):
    """However long this process sleeps between its steps, a node that answers each echo is alive."""
    node = Node()
    for stall in stalls:
        node.stall = stall
        assert not node.step().died


@given(st.floats(0.001, 0.4))
def test_a_long_way_is_no_death(way):
    """Echoes that take longer than the interval, always, are not missed once the way is known."""
    node = Node(way)
    for _ in range(100):
        assert not node.step().died
    assert node.session.condition is Condition.ALIVE


@given(st.floats(0.001, 0.9))
def test_a_node_that_is_far_away_dies_as_well(way):
    """It takes as many ways there and back as intervals otherwise."""
    node = Node(way)
    for _ in range(100):
        node.step()
    late = max(INTERVAL, 2 * way)
    assert node.until_dead() <= INTERVAL + SILENT * late + late / HASTE


@given(st.sets(st.integers(0, 400)))
def test_lost_echoes_kill_only_in_a_row(lost):
    """Whoever loses fewer than LEAST echoes one after another is never dead."""
    node = Node()
    dropped = 0
    for number in range(400):
        dropped = dropped + 1 if number in lost and dropped < LEAST - 1 and number > 3 else 0
        node.alive = not dropped
        assert not node.step().died


def test_a_forged_answer_counts_for_nothing():
    """A number that is not under way changes nothing."""
    session = NodeSession(INTERVAL)
    session.step(0.0)
    assert not session.heard(77, 0.0)
    assert session.condition is Condition.NEW
