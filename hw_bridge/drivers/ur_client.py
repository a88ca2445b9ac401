"""ur_rtde's control client in a process of its own: `python -m hw_bridge.drivers.ur_client ADDRESS FD`.

Why a process: when the arm is silent for 2.5 s the client reconnects by itself from its receiving thread, and then hangs in every
later call or crashes (1.6.5); that must not be the process that supervises the arm. Messages on the socket FD keep their
boundaries: set-points and requests in (`SETPOINT`), answers and failures out (one byte and words). Of set-points that have piled
up only the newest is sent. When the other side goes away, its program on the arm is ended.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

from hw_bridge.realtime.privileges import PollingThreads

SETPOINT = struct.Struct("<B7d")
"""What to do, six numbers, and one more."""
SERVO, SPEED, TORQUE = 1, 2, 3
BEGIN_SERVO, BEGIN_SPEED, BEGIN_TORQUE, END, PAYLOAD = 11, 12, 13, 20, 21
DONE, REFUSED, FAILED = b"\x00", b"\x01", b"\x02"
"""First byte of what comes out: a request was done or refused; a set-point was not taken."""
LOOKAHEAD_S, GAIN = 0.03, 2000.0
"""servoj's parameters, as UR's own driver sets them: a ramp is followed 30 ms late."""
ACCELERATION = 15.0
"""For speedj and for stopping [rad/s^2]."""
GRACE_S = 0.5
"""After a beginning the arm is held for at most so long, until the first set-point comes [s]."""
OVERSLEEP_NS = 2_000_000
"""How much later a state may be heard while set-points are streamed, which do not wait for one [ns]."""
NONE = [0.0] * 6


class ControlClient:
    """The control interface and the mode it is in."""

    def __init__(self, address: str) -> None:
        from rtde_control import RTDEControlInterface  # the extra

        self.hearing = PollingThreads(OVERSLEEP_NS)
        """The client's own thread, which hears the state of the control program."""
        with self.hearing.starting():
            self._control = RTDEControlInterface(address, 500.0, RTDEControlInterface.Flags.FLAG_NO_WAIT)
        self._mode = 0

    def send(self, mode: int, values: list[float]) -> bool:
        """Send one set-point; False where the controller does not take it, or is not heard any more."""
        try:
            if mode == SERVO:
                return self._control.servoJ(values, 0.0, 0.0, 0.002, LOOKAHEAD_S, GAIN)
            if mode == SPEED:
                return self._control.speedJ(values, ACCELERATION, 0.0)
            return self._control.directTorque(values, NONE, NONE)
        except RuntimeError:
            return False

    def begin(self, mode: int, at: list[float], watchdog_hz: float) -> str:
        """Start the control program with its watchdog and hold the arm at `at`; return why not, or nothing."""
        control = self._control
        if not control.isConnected():
            return "the connection to the controller is lost"
        self._mode = mode
        if not control.isProgramRunning():
            control.kickWatchdog()  # clears the register, in which the last set-point would lead the new program
        control.reuploadScript()
        until = time.monotonic() + 5.0
        while not control.isProgramRunning():
            if time.monotonic() > until:
                return "the control program did not start within 5 s"
            time.sleep(0.002)
        if not control.setWatchdog(watchdog_hz):
            return "the controller did not set its watchdog"
        return "" if self.send(mode, at) else "the controller did not take the first set-point"

    def end(self) -> None:
        """Slow down and end the program that `begin` started, nobody else's. The watchdog may end it first: the arm stops all the same."""
        control, mode, self._mode = self._control, self._mode, 0
        if not (mode and control.isConnected() and control.isProgramRunning()):
            return
        if mode == SERVO:
            control.servoStop(ACCELERATION)
        elif mode == SPEED:
            control.speedStop(ACCELERATION)
        elif mode == TORQUE:
            control.stopJ(ACCELERATION)
        if control.isProgramRunning():
            control.stopScript()

    def set_payload(self, mass: float, centre: list[float]) -> str:
        """Tell the controller its payload; return why not, or nothing."""
        return "" if self._control.setPayload(mass, centre) else "the controller did not take the payload"


def serve(client: ControlClient, channel: socket.socket) -> None:
    """Carry out what comes over `channel` until it closes."""
    mode, hold, hold_until, broken = 0, NONE, 0.0, False
    while True:
        if not select.select([channel], [], [], 0.002 if hold_until else None)[0]:
            hold_until = hold_until if time.monotonic() < hold_until and client.send(mode, hold) else 0.0
            continue
        packet = channel.recv(SETPOINT.size)
        while packet and packet[0] < BEGIN_SERVO and select.select([channel], [], [], 0.0)[0]:
            packet = channel.recv(SETPOINT.size)
        if not packet:
            with client.hearing.hurried():
                client.end()
            return
        what, *values, extra = SETPOINT.unpack(packet)
        if what < BEGIN_SERVO:
            hold_until = 0.0
            if mode == what and not broken and not client.send(what, values):
                broken = True
                channel.send(FAILED + b"the controller no longer takes set-points: its control program has ended")
            continue
        words, hold_until = "", 0.0
        with client.hearing.hurried():  # every step waits for a state
            if what in (BEGIN_SERVO, BEGIN_SPEED, BEGIN_TORQUE):
                mode, broken = what - 10, False
                hold = values if mode == SERVO else NONE
                words = client.begin(mode, hold, extra)
                hold_until = 0.0 if words else time.monotonic() + GRACE_S
            elif what == END:
                mode = 0
                client.end()
            elif what == PAYLOAD:
                words = client.set_payload(extra, values[:3])
        channel.send(REFUSED + words.encode() if words else DONE)


def main() -> None:
    """Connect, say so or why not, and serve."""
    channel = socket.socket(fileno=int(sys.argv[2]))
    try:
        client = ControlClient(sys.argv[1])
    except Exception as error:  # whatever the vendor's client throws is told to the one who can act on it
        channel.send(REFUSED + str(error).encode())
        return
    channel.send(DONE)
    serve(client, channel)


if __name__ == "__main__":
    main()
