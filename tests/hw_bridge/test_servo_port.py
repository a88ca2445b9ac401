"""A servo's bus, asked through the makers' own SDKs: no answer is taken for another, and a refusal is told. Nobody is on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from hw_bridge.drivers import servo_port
from hw_bridge.drivers.servo_port import ServoPort
from robots.errors import HardwareError

Packet = list[int]


class Wire:
    """In place of the SDK's open port: to every packet it answers with the next one of a list, the last one again and again."""

    is_using, packet_timeout = False, 0

    def __init__(self, answers: list[Packet]) -> None:
        self.ser = SimpleNamespace(reset_input_buffer=lambda: None)
        self.asked, self._answers, self._waiting = 0, answers, []

    def writePort(self, data: Packet) -> int:
        self._waiting = list(self._answers[min(self.asked, len(self._answers) - 1)])
        self.asked += 1
        return len(data)

    def readPort(self, size: int) -> Packet:
        taken, self._waiting = self._waiting[:size], self._waiting[size:]
        return taken

    def clearPort(self) -> None:
        return

    def setPacketTimeout(self, size: int) -> None:
        return

    def isPacketTimeout(self) -> bool:
        return True


def status(error: int, *data: int) -> Packet:
    """Return what servo 1 answers in protocol 2.0."""
    sdk = pytest.importorskip("dynamixel_sdk")
    packet = [0xFF, 0xFF, 0xFD, 0, 1, len(data) + 4, 0, 0x55, error, *data]
    crc = sdk.PacketHandler(2.0).updateCRC(0, [*packet, 0, 0], len(packet))
    return [*packet, crc & 0xFF, crc >> 8]


def feetech_status(error: int, *data: int) -> Packet:
    """Likewise, in Feetech's."""
    packet = [1, len(data) + 2, error, *data]
    return [0xFF, 0xFF, *packet, ~sum(packet) & 0xFF]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ServoPort, Wire]]:
    """Return a function that makes a port on which servo 1 gives these answers."""
    monkeypatch.setattr(servo_port.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(servo_port, "PortLock", lambda device: SimpleNamespace(exclude=lambda: None, close=lambda: None))

    def make(*answers: Packet, sdk: str = "dynamixel_sdk", protocol: float = 2.0) -> tuple[ServoPort, Wire]:
        module, wire = pytest.importorskip(sdk), Wire(list(answers))
        wire.openPort = lambda: True
        monkeypatch.setattr(module, "PortHandler", lambda device: wire)
        return ServoPort(module, "/dev/ttyX", 1_000_000, protocol, no_fast=protocol == 2.0), wire

    return make


@pytest.mark.parametrize(("error", "words"), [(0x07, "0x07 (Writing or"), (0x87, "0x87 (Hardware error occurred")])
def test_a_servo_that_refuses_is_asked_once_more_and_its_words_are_told(bus, error, words) -> None:
    port, wire = bus(status(error))
    with pytest.raises(HardwareError, match=re.escape(f"servo 1 on /dev/ttyX answered 0 bytes of data where 4 were asked, error {words}")):
        port.octets(1, 132, 4)
    assert wire.asked == 2


def test_what_answers_something_else_is_waited_out(bus) -> None:
    port, wire = bus(status(0x07), status(0x00, 1), status(0x07), status(0x00, 1, 2, 3, 4))
    assert port.octets(1, 132, 4) == [1, 2, 3, 4] and wire.asked == 4


@pytest.mark.parametrize("error", [0x00, 0x03, 0x80])  # nothing, a request that the wire broke, an alert: the next answer may be another
def test_an_empty_answer_that_is_no_refusal_is_asked_again_to_the_end(bus, error) -> None:
    port, wire = bus(status(error))
    with pytest.raises(HardwareError, match=f"answered 0 bytes of data where 4 were asked, error 0x{error:02x}"):
        port.octets(1, 132, 4)
    assert wire.asked == 8


def test_a_servo_that_is_silent_in_the_end_does_not_answer(bus) -> None:
    port, wire = bus(status(0x00, 1), [])
    with pytest.raises(HardwareError, match=r"does not answer: .*no status packet"):
        port.octets(1, 132, 4)
    assert wire.asked == 8


def test_a_write_is_answered_by_its_error(bus) -> None:
    port, wire = bus(status(0x04))
    assert port.write(1, 11, 9) == 0x04 and wire.asked == 1


def test_feetechs_error_byte_tells_of_the_servo_and_is_told_too(bus) -> None:
    port, wire = bus(feetech_status(0x20), sdk="scservo_sdk", protocol=0)
    with pytest.raises(HardwareError, match=r"answered 0 bytes of data where 2 were asked, error 0x20 \(Overload"):
        port.octets(1, 56, 2)
    assert wire.asked == 8
    assert bus(feetech_status(0x20, 5, 6), sdk="scservo_sdk", protocol=0)[0].octets(1, 56, 2) == [5, 6]
