"""The Dynamixel arm's twin, as Robotis' own SDK sees it: protocol 2.0, control table, modes, shutdown, bus watchdog."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hw_bridge.twins import dynamixel2 as dxl
from hw_bridge.twins.twin import TwinProcess

sdk = pytest.importorskip("dynamixel_sdk")
IDS = range(1, 7)
STEP = 2 * np.pi / 4096


@pytest.fixture(scope="module")
def process():
    with TwinProcess("dynamixel_arm") as twin:
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
    """The SDK's calls with further tries: a busy machine may keep an answer longer than the SDK waits."""

    def __init__(self, port):
        self.port, self.packets = port, sdk.PacketHandler(2.0)

    def tried(self, call, *fields):
        for _ in range(20):
            answer = call(self.port, *fields)
            if answer[-2] == sdk.COMM_SUCCESS:
                return answer
            time.sleep(0.05)
        raise AssertionError(f"no answer: {answer}")

    def get(self, number, address, size):
        data = self.tried(self.packets.readTxRx, number, address, size)[0]
        return int.from_bytes(bytes(data), "little", signed=True)

    def put(self, number, address, size, value):
        """Write and return the servo's error byte."""
        data = list((value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        return self.tried(self.packets.writeTxRx, number, address, size, data)[1]

    def sync_read(self, address, size, fast=False):
        group = sdk.GroupSyncRead(self.port, self.packets, address, size)
        for number in IDS:
            group.addParam(number)
        for _ in range(20):
            if (group.fastSyncRead() if fast else group.txRxPacket()) == sdk.COMM_SUCCESS:
                return [bytes(group.data_dict[number]) for number in IDS]
            time.sleep(0.05)
        raise AssertionError("no answer")


def wait_for(holds, seconds=3.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def test_packets_are_their_own_inverse_whatever_they_hold():
    random = np.random.default_rng(0)
    for _ in range(300):
        body = bytes([dxl.STATUS]) + bytes(random.choice([0xFF, 0xFD, 0x00, 0x55], size=random.integers(0, 20)).tolist())
        whole = dxl.packet(3, body)
        assert dxl.opened(whole) == (3, body)
        assert dxl.split(bytearray(b"\x00\xff\xff" + whole)) == [whole]
        spoiled = bytearray(whole)
        spoiled[int(random.integers(4, len(whole)))] ^= 1 << int(random.integers(8))
        assert dxl.opened(bytes(spoiled)) is None


def test_the_crc_is_the_sdks():
    data = bytes(range(256))
    assert dxl.crc16(data) == sdk.PacketHandler(2.0).updateCRC(0, list(data), len(data))


def test_every_servo_answers_with_its_model(bus):
    assert [bus.tried(bus.packets.ping, number)[0] for number in IDS] == [1020] * 3 + [1200] * 3


def test_stuffed_bytes_come_through(bus, twin):
    twin.fault("register", joint=0, address=200 - 100 + 8, data=[0xFF, 0xFF, 0xFD, 0x00, 0xFF, 0xFF, 0xFD, 0xFF])
    assert bytes(bus.tried(bus.packets.readTxRx, 1, 108, 8)[0]) == bytes([0xFF, 0xFF, 0xFD, 0x00, 0xFF, 0xFF, 0xFD, 0xFF])


def test_sync_reads_fast_and_slow_give_the_same(bus):
    slow, fast = bus.sync_read(132, 4), bus.sync_read(132, 4, fast=True)
    assert all(abs(int.from_bytes(a, "little") - int.from_bytes(b, "little")) <= 2 for a, b in zip(slow, fast, strict=True))
    assert bus.sync_read(0, 2, fast=True) == bus.sync_read(0, 2)


def test_a_sync_read_is_no_faster_than_the_wire(bus):
    times = []
    for _ in range(40):
        start = time.perf_counter()
        bus.sync_read(126, 10)
        times.append(time.perf_counter() - start)
    assert min(times) >= (20 + 6 * 21) * 10e-6


def test_a_goal_is_reached(bus, twin):
    assert bus.put(1, 116, 4, 2148) == 0
    wait_for(lambda: abs(bus.get(1, 132, 4) - 2148) <= 4)
    assert twin.fault("state")["q"][0] == pytest.approx(100 * STEP, abs=0.01)


def test_a_registered_write_waits_for_action(bus, twin):
    assert bus.packets.regWriteTxRx(bus.port, 1, 112, 4, [50, 0, 0, 0])[0] == sdk.COMM_SUCCESS
    assert bus.get(1, 112, 4) == 0
    bus.packets.action(bus.port, sdk.BROADCAST_ID)
    wait_for(lambda: bus.get(1, 112, 4) == 50)


def test_a_velocity_is_kept(bus, twin):
    bus.put(1, 64, 1, 0)
    assert bus.put(1, 11, 1, 1) == 0
    bus.put(1, 64, 1, 1)
    bus.put(1, 104, 4, 60)
    wait_for(lambda: abs(bus.get(1, 128, 4) - 60) <= 3)
    assert twin.fault("state")["dq"][0] == pytest.approx(60 * 0.229 * 2 * np.pi / 60, rel=0.1)


def test_a_current_is_a_torque(bus, twin):
    bus.put(1, 64, 1, 0)
    assert bus.put(1, 11, 1, 0) == 0
    bus.put(1, 64, 1, 1)
    bus.put(1, 102, 2, 100)
    wait_for(lambda: twin.fault("state")["tau"][0] != 0.0)
    assert twin.fault("state")["tau"][0] == pytest.approx(100 * 0.00269 * 4.1 / 2.3, rel=0.05)
    bus.put(1, 64, 1, 0)


def test_a_current_bounds_position_mode_5(bus, twin):
    bus.put(1, 64, 1, 0)
    assert bus.put(1, 11, 1, 5) == 0
    bus.put(1, 102, 2, 40)
    bus.put(1, 64, 1, 1)
    bus.put(1, 116, 4, 3000)
    for _ in range(10):
        assert abs(twin.fault("state")["tau"][0]) <= 40 * 0.00269 * 4.1 / 2.3 + 1e-9
        time.sleep(0.01)


@pytest.mark.parametrize(("address", "size", "value", "error"), [
    (11, 1, 3, 7), (116, 4, 5000, 6), (104, 4, 100000, 6), (102, 2, 1194, 6), (132, 4, 0, 7), (155, 8, 0, 5)])
def test_what_a_register_does_not_take_is_refused(bus, address, size, value, error):
    before = bus.get(1, 116, 4)
    assert bus.put(1, address, size, value) == error
    assert bus.get(1, 116, 4) == before


def test_an_overload_shuts_down_until_a_reboot(bus, twin):
    twin.fault("payload", mass=6.0)
    bus.put(2, 116, 4, bus.get(2, 132, 4) + 400)
    wait_for(lambda: bus.get(2, 70, 1) & 32, seconds=6.0)
    assert bus.get(2, 64, 1) == 0
    assert bus.tried(bus.packets.ping, 2)[2] & 0x80
    twin.fault("payload", mass=0.0)
    assert bus.put(2, 64, 1, 1) & 0x7F == 1
    bus.packets.reboot(bus.port, 2)
    time.sleep(0.2)
    wait_for(lambda: bus.get(2, 70, 1) == 0)
    assert bus.put(2, 64, 1, 1) == 0


def test_the_watchdog_stops_and_keeps_goals_out_until_it_is_cleared(bus, twin):
    bus.put(1, 98, 1, 2)
    time.sleep(0.4)
    assert bus.get(1, 98, 1) == -1
    assert bus.put(1, 116, 4, 2300) == 4
    assert bus.put(1, 98, 1, 0) == 0 and bus.put(1, 116, 4, 2060) == 0


def test_a_spoiled_request_is_not_obeyed(bus, twin):
    twin.fault("corrupt", share=1.0)
    before = twin.fault("state")["mode"]["goal"][0]
    bus.packets.write4ByteTxOnly(bus.port, 1, 116, 2400)
    wait_for(lambda: twin.fault("state")["counters"]["corrupted"] > 0)
    assert twin.fault("state")["mode"]["goal"][0] == before


def test_an_unknown_fault_is_refused(twin):
    with pytest.raises(Exception, match="known:"):
        twin.fault("earthquake")
    with pytest.raises(Exception, match="expected 0 to 1"):
        twin.fault("loss", share=2.0)
    with pytest.raises(Exception, match="number of a joint"):
        twin.fault("stuck_encoder", joint=6)
