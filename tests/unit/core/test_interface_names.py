"""Generated names of interfaces: stable, and never twice."""

from nsmesh.core import interface_names as module
from nsmesh.core.interface_names import InterfaceNames
from nsmesh.model.nsurl import generate_interface_name

SERVICE = "icmp-responder"


def test_who_asks_again_gets_the_same_name():
    """In the same process and after a restart."""
    names = InterfaceNames()
    assert names.name(SERVICE, "c1 offered") == names.name(SERVICE, "c1 offered")
    assert InterfaceNames().name(SERVICE, "c1 offered") == names.name(SERVICE, "c1 offered")


def test_no_two_have_one_name(monkeypatch):
    """Where the generator has a hundred names for ninety who ask, each gets its own, and keeps it."""
    monkeypatch.setattr(
        module, "generate_interface_name", lambda service, random: f"{service[:3]}-{random.randrange(100)}"
    )
    names = InterfaceNames()
    first = [names.name(SERVICE, f"c{number}") for number in range(90)]
    assert len(set(first)) == 90
    assert [names.name(SERVICE, f"c{number}") for number in range(90)] == first


def test_thousands_of_one_service_are_all_different():
    """Four random characters alone would give two of them the same name in a quarter of all runs."""
    names = InterfaceNames()
    assert len({names.name(SERVICE, f"c{number}") for number in range(3000)}) == 3000


def test_another_name_is_none_that_is_taken():
    """What somebody unknown has is never given to anybody here afterwards."""
    names = InterfaceNames()
    taken = generate_interface_name(SERVICE, module.Random("c1"))
    assert names.another(SERVICE, taken) != taken
    assert names.name(SERVICE, "c1") != taken


def test_only_so_many_are_remembered():
    """Memory is bounded; those that were not asked for longest are forgotten first."""
    names = InterfaceNames(most=10)
    for number in range(100):
        names.name(SERVICE, f"c{number}")
    assert len(names._owners) == 10
