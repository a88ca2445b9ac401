"""Dynamixel protocol 2.0: packets with stuffed bytes and a CRC."""

from __future__ import annotations

HEADER = b"\xff\xff\xfd\x00"
PING, READ, WRITE, REG_WRITE, ACTION, REBOOT, STATUS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
BROADCAST = 0xFE

RESULT_FAIL, INSTRUCTION_ERROR, CRC_ERROR, DATA_RANGE, DATA_LENGTH, DATA_LIMIT, ACCESS = 1, 2, 3, 4, 5, 6, 7
ALERT = 0x80


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        crc = value << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
        entries.append(crc & 0xFFFF)
    return tuple(entries)


_CRC = _table()


def crc16(data: bytes, crc: int = 0) -> int:
    """Return the CRC of `data` (polynomial 0x8005, not reflected), going on from `crc`."""
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC[crc >> 8 ^ byte]
    return crc


def stuffed(body: bytes) -> bytes:
    """Return instruction and parameters with FD put in after every FF FF FD."""
    return body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def unstuffed(body: bytes) -> bytes:
    """Undo `stuffed`."""
    return body.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def packet(number: int, body: bytes) -> bytes:
    """Return the whole packet of instruction and parameters `body` for or from servo `number`."""
    inner = stuffed(body)
    start = HEADER + bytes([number]) + (len(inner) + 2).to_bytes(2, "little") + inner
    return start + crc16(start).to_bytes(2, "little")


def split(received: bytearray) -> list[bytes]:
    """Take whole packets off the front, rubbish before them too."""
    packets = []
    while True:
        start = received.find(HEADER)
        if start < 0:
            del received[:-3]
            return packets
        del received[:start]
        if len(received) < 7:
            return packets
        size = int.from_bytes(received[5:7], "little") + 7
        if not 10 <= size <= 1024:
            del received[:1]
            continue
        if len(received) < size:
            return packets
        packets.append(bytes(received[:size]))
        del received[:size]


def opened(whole: bytes) -> tuple[int, bytes] | None:
    """Return servo number and instruction with parameters of a packet; None where its CRC is wrong."""
    if crc16(whole[:-2]) != int.from_bytes(whole[-2:], "little"):
        return None
    return whole[4], unstuffed(whole[7:-2])


def fast_answer(answers: list[tuple[int, int, bytes]]) -> bytes:
    """Return the one packet that answers a fast sync read: error, number, data and the CRC so far of every servo in turn."""
    size = 1 + sum(len(data) + 4 for _, _, data in answers)
    whole = HEADER + bytes([BROADCAST]) + size.to_bytes(2, "little") + bytes([STATUS])
    for number, error, data in answers:
        whole += bytes([error, number]) + data
        whole += crc16(whole).to_bytes(2, "little")
    return whole
