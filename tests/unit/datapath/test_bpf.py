"""The assembler: instructions in the kernel's own form, jumps that land."""

import pytest

from nsmesh.core.errors import Internal
from nsmesh.datapath import bpf
from nsmesh.datapath.payload_program import CLASSES, VALUE_SIZE, program


def instructions(code):
    return [code[at : at + 8].hex(" ") for at in range(0, len(code), 8)]


def test_instructions_are_the_kernels():
    """As the kernel's own documents write them: opcode, registers, offset, number, little-endian."""
    made = bpf.Assembler()
    made.set(0, -1)
    made.move(6, 1)
    made.load(2, bpf.H, 6, 12)
    made.store_number(bpf.DW, 10, -8, 0)
    made.call(bpf.BPF_FUNC_SKB_LOAD_BYTES)
    made.leave()
    assert instructions(made.code()) == [
        "b7 00 00 00 ff ff ff ff",
        "bf 16 00 00 00 00 00 00",
        "69 62 0c 00 00 00 00 00",
        "7a 0a f8 ff 00 00 00 00",
        "85 00 00 00 1a 00 00 00",
        "95 00 00 00 00 00 00 00",
    ]


def test_jumps_go_forth_and_back():
    """Offsets count from the instruction behind; a label that is nowhere is a fault of ours."""
    made = bpf.Assembler()
    made.label("start")
    made.go_if(0, "==", 1, "end")
    made.go("start")
    made.label("end")
    made.leave()
    assert instructions(made.code())[:2] == ["15 00 01 00 01 00 00 00", "05 00 fe ff 00 00 00 00"]
    made.go("nowhere")
    with pytest.raises(Internal, match="nowhere"):
        made.code()


@pytest.mark.parametrize("payload", ["IP", "MPLS", "L2TP"])
def test_programs_are_the_same_each_time(payload):
    """Only then does a restarted forwarder know them again; and they stay small."""
    assert program(payload, 7) == program(payload, 7)
    assert len(program(payload, 7)) // 8 < 200
    assert 8 * len(CLASSES) <= VALUE_SIZE
