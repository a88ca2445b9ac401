"""The SO-101's twin, as Feetech's own SDK sees it: registers, steps, play, protection, and the time that bytes take."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hw_bridge.twins.so101 import split
from hw_bridge.twins.sts3215 import STEP, magnitude, signed
from hw_bridge.twins.twin import TwinProcess

sdk = pytest.importorskip("scservo_sdk")
IDS = range(1, 7)


@pytest.fixture(scope="module")
def process():
    with TwinProcess("so101") as twin:
        yield twin


@pytest.fixture
def twin(process):
    process.fault("reset")
    return process


@pytest.fixture
def bus(twin):
    port = sdk.PortHandler(twin.ready["device"])
    assert port.openPort()
    yield Bus(port)
    port.closePort()


class Bus:
    """The SDK's calls with a second and third try: a busy machine may keep an answer longer than the SDK waits."""

    def __init__(self, port):
        self.port, self.packets = port, sdk.PacketHandler(0)

    def tried(self, call, *fields):
        for _ in range(20):
            self.port.ser.reset_input_buffer()
            answer = call(self.port, *fields)
            if answer[-2] == sdk.COMM_SUCCESS:
                return answer
        raise AssertionError(f"no answer: {answer}")

    def word(self, number, address):
        return self.tried(self.packets.read2ByteTxRx, number, address)[0]

    def octet(self, number, address):
        return self.tried(self.packets.read1ByteTxRx, number, address)[0]

    def write(self, number, address, value, size=2):
        self.tried(self.packets.write2ByteTxRx if size == 2 else self.packets.write1ByteTxRx, number, address, value)


def settle(twin, seconds=3.0):
    """Wait until the first joint stands still and return where [rad]."""
    end = time.monotonic() + seconds
    time.sleep(0.2)
    while time.monotonic() < end:
        time.sleep(0.03)
        state = twin.fault("state")
        if abs(state["dq"][0]) < 1e-3:
            break
    return state["q"][0]


def test_every_servo_answers_with_its_model_and_no_other(bus):
    assert [bus.tried(bus.packets.ping, number)[0] for number in IDS] == [777] * 6
    assert bus.packets.ping(bus.port, 9)[1] == sdk.COMM_RX_TIMEOUT


def test_sizes_and_signs_are_their_own_inverse():
    for bit in (10, 11, 15):
        assert all(signed(magnitude(value, bit), bit) == value for value in (-1000, -1, 0, 1, 1000))
    assert magnitude(-1, 11) == 0x801


def test_homing_shifts_the_reading(bus, twin):
    before = bus.word(5, 56)
    offset = signed(bus.word(5, 31), 11)
    bus.write(5, 31, magnitude(offset + 100, 11))
    assert bus.word(5, 56) == before - 100


def test_what_the_lock_kept_out_of_the_eeprom_is_gone_after_power_off(bus, twin):
    bus.write(2, 21, 20, size=1)
    bus.write(3, 55, 0, size=1)
    bus.write(3, 21, 20, size=1)
    assert [bus.octet(2, 21), bus.octet(3, 21)] == [20, 20]
    twin.fault("power_cycle")
    assert [bus.octet(2, 21), bus.octet(3, 21)] == [32, 20]


def test_readings_are_whole_steps_of_the_true_angle(bus, twin):
    bus.write(1, 42, 2100)
    true = settle(twin)
    read = (bus.word(1, 56) - 2048) * STEP
    assert abs(read - true) <= 0.5 * STEP + 1e-4
    assert true / STEP != round(true / STEP)


def test_a_goal_is_reached_from_either_side_with_the_play_between(bus, twin):
    bus.write(1, 46, 120)  # slowly: a fast arm coasts through the play
    bus.write(1, 42, 2078)
    from_below = settle(twin)
    bus.write(1, 42, 2128)
    settle(twin)
    bus.write(1, 42, 2078)
    from_above = settle(twin)
    goal = (2078 - 2048) * STEP
    assert abs(from_above - goal) < 0.03 and abs(from_below - goal) < 0.03
    assert np.radians(0.4) < from_above - from_below < np.radians(1.6)


def test_goal_speed_is_kept(bus, twin):
    bus.write(1, 46, 300)
    bus.write(1, 42, 2248)
    time.sleep(0.3)
    assert abs(signed(bus.word(1, 58), 15) - 300) < 60
    assert settle(twin) == pytest.approx(200 * STEP, abs=0.03)


def test_overload_drops_the_torque_until_torque_is_enabled_anew(bus, twin):
    for number in IDS:
        bus.write(number, 35, 10, size=1)
        bus.write(number, 42, bus.word(number, 56))
    twin.fault("payload", mass=4.0)
    time.sleep(0.6)
    assert bus.octet(2, 65) & 32
    assert abs(twin.fault("state")["mode"]["duty"][1]) <= 0.2 + 1e-9
    twin.fault("payload", mass=0.0)
    time.sleep(0.3)
    error = bus.tried(bus.packets.read2ByteTxRx, 2, 56)[2]
    assert error & 32, "the latch must outlast the load"
    bus.write(2, 42, bus.word(2, 56))
    bus.write(2, 40, 1, size=1)
    assert not bus.octet(2, 65) & 32


def test_voltage_and_temperature_are_reported(bus, twin):
    twin.fault("voltage", volts=3.0)
    assert bus.octet(1, 62) == 30 and bus.octet(1, 65) & 1
    twin.fault("voltage", volts=12.0)
    twin.fault("temperature", joint=0, celsius=80.0)
    assert bus.octet(1, 63) == 80 and bus.octet(1, 65) & 4


def test_a_sync_read_is_no_faster_than_the_wire(bus):
    group = sdk.GroupSyncRead(bus.port, bus.packets, 56, 2)
    for number in IDS:
        group.addParam(number)
    times = []
    for _ in range(60):
        bus.port.ser.reset_input_buffer()
        start = time.perf_counter()
        if group.txRxPacket() == sdk.COMM_SUCCESS:
            times.append(time.perf_counter() - start)
    assert times and min(times) >= 62 * 10e-6  # 14 bytes out, six answers of 8


def test_a_target_that_jumps_is_noted(bus, twin):
    bus.write(1, 42, 2048)
    bus.write(1, 42, 2148)
    assert twin.fault("state")["command_violation_count"] == 1
    bus.write(1, 42, 3800)
    words = twin.fault("state")["command_violations"]
    assert any("limits" in line for line in words) and any("jumped" in line for line in words)


def test_a_paused_twin_does_not_catch_up(twin):
    twin.pause()
    time.sleep(0.3)
    twin.go_on()
    time.sleep(0.05)
    assert twin.fault("state")["skipped_s"] > 0.2


def test_a_stuck_encoder_shows_one_angle_while_the_arm_moves(bus, twin):
    bus.write(1, 42, 2048)
    twin.fault("stuck_encoder", joint=0)
    shown = bus.word(1, 56)
    bus.write(1, 42, 2148)
    assert settle(twin) > 0.05
    assert bus.word(1, 56) == shown
    twin.fault("heal")
    assert bus.word(1, 56) != shown


def test_a_frozen_servo_repeats_itself(bus, twin):
    bus.write(1, 42, 2048)
    shown = bus.word(1, 56)
    twin.fault("frozen_timestamp")
    bus.write(1, 42, 2148)
    assert settle(twin) > 0.05 and bus.word(1, 56) == shown


def test_it_ends_cleanly_when_told_to():
    with TwinProcess("so101") as own:
        own.process.terminate()
        assert own.process.wait(10.0) == 0


def test_rubbish_before_a_packet_is_skipped_and_halves_are_kept():
    ping = bytes([0xFF, 0xFF, 1, 2, 1, 0xFB])
    received = bytearray(b"\x00\xff\x07" + ping + ping[:3])
    assert split(received) == [ping]
    received += ping[3:]
    assert split(received) == [ping] and not received
