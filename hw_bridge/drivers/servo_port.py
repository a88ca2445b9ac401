"""A bus of servos on a serial port that one program holds alone, through the maker's SDK (Feetech's and Robotis' are of one family)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

from robots.errors import HardwareError

Packet = list[int]

_WIRE_ERRORS = (OSError, termios.error, TypeError)
"""What pyserial raises where a device vanishes or is closed under it."""
_TRIES = 8
_REFUSALS = (0x02, 0x04, 0x05, 0x06, 0x07)
"""Error numbers of protocol 2.0 that asking again does not change: instruction, range, length, limit, access. An alert (its eighth bit)
is none, nor a CRC that the wire broke. Feetech's byte tells of the servo's state, not of what was asked."""
_QUIET_S = 0.05
_POLL_S = 0.0005


class PortLock:
    """Holds a serial device against every other program: `flock`, which pyserial's exclusive mode honours, and after `exclude` also
    the terminal's own exclusive flag, which refuses any other open (except by root). HardwareError where somebody has it already.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise HardwareError(f"{device} does not exist: is the adapter plugged in? `ls /dev/serial/by-id` shows it") from error
        except PermissionError as error:
            raise HardwareError(f"no permission to open {device}: add yourself to its group (`ls -l {device}`; usually dialout)") from error
        except OSError as error:
            raise HardwareError(f"{device} cannot be opened ({error.strerror}): another program may hold it alone; end that one") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise HardwareError(f"another program holds {device}: two writers on one bus would fight over the arm; end the other first "
                                f"(`fuser {device}` names it)") from error

    def exclude(self) -> None:
        """Refuse every open from now on."""
        fcntl.ioctl(self._fd, termios.TIOCEXCL)

    def close(self) -> None:
        """Let go; harmless twice."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # the device is gone, and the flag with it
                fcntl.ioctl(self._fd, termios.TIOCNXCL)
            os.close(self._fd)
            self._fd = -1


class ServoPort:
    """An open bus. HardwareError in words wherever the wire or a servo fails."""

    def __init__(self, sdk: ModuleType, device: str, baud: int, protocol: float, *, no_fast: bool) -> None:
        """Open `device`; `protocol` is what the SDK's PacketHandler takes, `no_fast` is True for the SDK that knows fast reads."""
        self._sdk, self.device = sdk, device
        self._slow = (False,) if no_fast else ()
        self._lock = PortLock(device)
        self._port = sdk.PortHandler(device)
        self._port.baudrate = baud
        try:
            if not self._port.openPort():
                raise HardwareError(f"{baud} baud is nothing that the SDK of these servos knows; they come with 1000000 or 57600")
            self._port.ser.timeout = _POLL_S
            # The SDKs wait for the last byte, or throw away what came late, before they send. Late answers are told apart here.
            self._port.clearPort = _nothing
            self._lock.exclude()
        except _WIRE_ERRORS as error:
            self._lock.close()
            raise HardwareError(f"{device} cannot be opened as a serial port: {error}") from error
        except BaseException:
            self._lock.close()
            raise
        self.packets = sdk.PacketHandler(protocol)
        self._receive, self.packets.rxPacket = self.packets.rxPacket, self._received
        self._second = protocol == 2.0
        self._ping_size = 3 if protocol == 2.0 else 2  # model and firmware; the model, which the SDK reads after it
        self._last: tuple[int, int] | None = None
        """Bytes of data in the last packet, and its servo's error byte; None where none came whole."""

    def _received(self, *arguments: object) -> tuple[Packet, int]:
        """Receive as the SDK does, and note how much came: of a longer answer the SDK returns the first bytes."""
        packet, result = self._receive(*arguments)
        self._last = (_answered_2 if self._second else _answered)(packet) if result == self._sdk.COMM_SUCCESS else None
        return packet, result

    def asked(self, call: Callable[..., tuple], number: int, *fields: object, size: int | None = None, tries: int = _TRIES) -> tuple:
        """Return what the SDK's `call` gives, its last answer one with `size` bytes of data where that is stated, after up to `tries`.

        Nothing in an answer tells what was asked, but its length: after a failure this waits until what is under way must have come. A
        servo that then refuses again is not asked any more: the first refusal may have been the late answer to something else.
        """
        port, refused = self._port, False
        for k in range(tries):
            port.is_using, self._last = False, None
            try:
                port.ser.reset_input_buffer()
                answer = call(port, number, *fields)
            except IndexError:  # the SDK trips over an answer that is shorter than it expected
                answer = (self._sdk.COMM_RX_CORRUPT, 0)
            except _WIRE_ERRORS as error:
                raise self._failed(error) from error
            came, status = self._last or (-1, 0)
            if answer[-2] == self._sdk.COMM_SUCCESS and size in (None, came):
                return answer
            before, refused = refused, self._second and came == 0 and status & 0x7F in _REFUSALS
            if before and refused:
                break
            time.sleep(_QUIET_S * min(1 + k, 4))
        if came >= 0 and size is not None:
            words = self.packets.getRxPacketError(status).removeprefix("[RxPacketError] ")
            raise HardwareError(f"servo {number} on {self.device} answered {came} bytes of data where {size} were asked, "
                                f"error 0x{status:02x}{f' ({words})' if words else ''}")
        raise HardwareError(f"servo {number} on {self.device} does not answer: {self.packets.getTxRxResult(answer[-2])}")

    def models(self, ids: list[int]) -> dict[int, int]:
        """Return the model number of every servo that answers, by id."""
        found: dict[int, int] = {}
        for k in range(_TRIES):
            for number in ids:
                if number not in found:
                    with contextlib.suppress(HardwareError):
                        found[number] = self.asked(self.packets.ping, number, size=self._ping_size, tries=1)[0]
            if len(found) == len(ids) or (k > 0 and not found):
                break
        return found

    def octets(self, number: int, address: int, size: int) -> list[int]:
        """Return `size` bytes of a servo's registers."""
        return self.asked(self.packets.readTxRx, number, address, size, size=size)[0]

    def write(self, number: int, address: int, *data: int) -> int:
        """Write bytes into a servo's registers and return the error byte of its answer."""
        return self.asked(self.packets.writeTxRx, number, address, len(data), list(data), size=0)[-1]

    def sync_write(self, address: int, size: int, entries: list[int]) -> None:
        """Write `size` bytes to many servos in one packet that nobody answers; `entries` are ids, each with its bytes."""
        self._port.is_using = False
        try:
            result = self.packets.syncWriteTxOnly(self._port, address, size, entries, len(entries))
        except _WIRE_ERRORS as error:
            raise self._failed(error) from error
        if result != self._sdk.COMM_SUCCESS:
            raise HardwareError(f"set-points could not be sent on {self.device}: {self.packets.getTxRxResult(result)}")

    def sync_read(self, address: int, size: int, ids: list[int], budget_s: float, take: Callable[[Packet], bool]) -> None:
        """Ask many servos for `size` bytes in one packet, and give every good packet that comes to `take`, late ones too, until it
        returns True or the time is up.

        The SDK's own GroupSyncRead waits 34 ms and gives all servos up with the first that is silent, so its parts are called here.
        """
        port, packets, slow = self._port, self.packets, self._slow
        try:
            port.is_using = False
            packets.syncReadTx(port, address, size, ids, len(ids), *slow)
            port.setPacketTimeoutMillis(1000.0 * budget_s)
            while True:
                packet, result = packets.rxPacket(port, *slow)
                if result == self._sdk.COMM_SUCCESS:
                    if take(packet):
                        return
                elif port.packet_timeout == 0:
                    return
        except _WIRE_ERRORS as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> HardwareError:
        return HardwareError(f"the wire to {self.device} failed ({error}): was the adapter unplugged?")

    def close(self) -> None:
        """Let go of the port; harmless twice."""
        if self._port.ser is not None:
            with contextlib.suppress(*_WIRE_ERRORS):
                self._port.closePort()
        self._lock.close()


def _nothing() -> None:
    return


def _answered(packet: Packet) -> tuple[int, int]:
    """Return how many bytes of data an answer has, and the servo's error byte, of Feetech's protocol."""
    return packet[3] - 2, packet[4]


def _answered_2(packet: Packet) -> tuple[int, int]:
    """Likewise, of Robotis' second one."""
    return (packet[5] | packet[6] << 8) - 4, packet[8]


def way_back(goal: np.ndarray, seen: np.ndarray, step: np.ndarray) -> Iterator[np.ndarray]:
    """Yield goals (n,) [rad] from `goal` to `seen`, no joint further than a quarter of `step` (n,), its fastest, from the one before.

    A goal that jumped back to where an arm was seen would throw it: it lags behind, and its encoder may lie.
    """
    while (goal != seen).any():
        goal = np.clip(seen, goal - 0.25 * step, goal + 0.25 * step)
        yield goal


_PAUSE_NS = 50_000_000
"""No request takes so long, and a loop sends several meanwhile: who finds so much time gone by stood still himself."""


class Tags:
    """Which request does an answer belong to? Servos do not say; so requests differ in length, and the answers with them.

    Of `count` requests in turn, the k-th asks for `size` + k bytes. An answer to the newest request is as old as its arrival; a late one
    counts as old as its request was sent.
    """

    def __init__(self, servos: int, size: int, count: int = 8) -> None:
        self._size, self._count = size, count
        self._tag = 0
        self._sent_ns = [0] * count
        self._owed = [0] * count
        self._servos = servos
        self.heard = [0] * servos
        """Age of what is known of each servo: host's monotonic clock [ns]."""
        self._awake_ns = 0
        """When we went on listening after a pause of our own."""
        self.missing = 0
        """Answers that have not come by the time their request's turn comes round again."""

    def ask(self) -> int:
        """Begin a request, and return how many bytes it shall ask for."""
        self.silence()
        self._tag = tag = (self._tag + 1) % self._count
        self.missing += self._owed[tag]
        self._owed[tag] = self._servos
        self._sent_ns[tag] = time.monotonic_ns()
        return self._size + tag

    def place(self, size: int) -> bool:
        """True where an answer with `size` bytes can be one of these."""
        return 0 <= size - self._size < self._count

    def take(self, servo: int, size: int) -> bool:
        """Note an answer of `size` bytes; True where it is newer than what is known of that servo."""
        tag = size - self._size
        stamp = time.monotonic_ns() if tag == self._tag else self._sent_ns[tag]
        if stamp <= self.heard[servo]:
            return False
        self._owed[tag] = max(self._owed[tag] - 1, 0)
        self.heard[servo] = stamp
        return True

    def silence(self) -> float:
        """Return for how long one of the servos has not been heard although we listened [s]; call it before and after every request."""
        now_ns = time.monotonic_ns()
        if now_ns - self._sent_ns[self._tag] > _PAUSE_NS:
            self._awake_ns = now_ns
        return (now_ns - max(min(self.heard), self._awake_ns)) * 1e-9

    def age(self) -> float:
        """Return how old the oldest of what is known of the servos is [s]."""
        return (time.monotonic_ns() - min(self.heard)) * 1e-9

    @property
    def complete(self) -> bool:
        """True where the newest request was answered by all."""
        return self._owed[self._tag] == 0
