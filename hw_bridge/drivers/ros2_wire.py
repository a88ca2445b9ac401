"""DDS as ROS 2 uses it: a participant, optionally shut into loopback, topics by their ROS names, ROS 2's qualities of service."""

from __future__ import annotations

import time
import uuid
from typing import TypeVar

from robots.errors import ConfigurationError, HardwareError, MissingExtraError

try:
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
    from cyclonedds.core import DDSException, Policy, Qos
    from cyclonedds.domain import Domain, DomainParticipant
    from cyclonedds.internal import InvalidSample
    from cyclonedds.pub import DataWriter
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration
except ImportError as error:
    raise MissingExtraError("ROS 2 without ROS", "ros2") from error

Message = TypeVar("Message")

LOOPBACK = """<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>30</MaxAutoParticipantIndex><Peers><Peer Address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""
"""Cyclone's configuration that leaves this machine alone: unicast discovery on the loopback interface only."""
HIGHEST_DOMAIN = 232
POLL_S = 0.01

_domains: dict[int, Domain] = {}  # a DDS domain can be configured once in a process, and Cyclone keeps it as long as the object lives


class Node:
    """A participant of one domain. `loopback` False leaves the network to Cyclone's own configuration (CYCLONEDDS_URI)."""

    def __init__(self, domain: int, loopback: bool = True) -> None:
        if not 0 <= domain <= HIGHEST_DOMAIN:
            raise ConfigurationError(f"ROS domain: expected 0 to {HIGHEST_DOMAIN}, got {domain}")
        self.domain = domain
        try:
            if domain not in _domains:
                _domains[domain] = Domain(domain, LOOPBACK if loopback else None)
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise HardwareError(f"ROS domain {domain}: {error.msg}; is there such a network interface, and a free port?") from error
        self._publications = BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication)

    def writer(self, topic: str, kind: type[Message], best_effort: bool = False) -> DataWriter[Message]:
        """Return a writer of the ROS topic `topic` ('/name')."""
        return DataWriter(self._participant, self._topic(topic, kind), qos=quality(best_effort))

    def reader(self, topic: str, kind: type[Message], best_effort: bool = False) -> DataReader[Message]:
        """Return a reader of the ROS topic `topic` ('/name')."""
        return DataReader(self._participant, self._topic(topic, kind), qos=quality(best_effort))

    def strangers(self, topic: str) -> set[uuid.UUID]:
        """Return the participants other than this one that are known to publish on the ROS topic `topic`."""
        own = self._participant.guid
        return {found.participant_key for found in self._publications.read(1000)
                if getattr(found, "topic_name", "") == "rt" + topic and found.participant_key != own}

    def _topic(self, name: str, kind: type[Message]) -> Topic[Message]:
        if not name.startswith("/") or name.endswith("/"):
            raise ConfigurationError(f"ROS topic: expected a name such as '/joint_states', got {name!r}")
        return Topic(self._participant, "rt" + name, kind)


def take(reader: DataReader[Message], count: int) -> list[Message]:
    """Return up to `count` messages, oldest first, without waiting; what DDS says of writers that left is passed over."""
    return [message for message in reader.take(count) if not isinstance(message, InvalidSample)]


def quality(best_effort: bool) -> Qos:
    """Return ROS 2's default quality (reliable, volatile, keep last 10), or that of sensors (best effort, keep last 5)."""
    reliability = Policy.Reliability.BestEffort if best_effort else Policy.Reliability.Reliable(duration(milliseconds=10))
    return Qos(reliability, Policy.Durability.Volatile, Policy.History.KeepLast(5 if best_effort else 10))


def matched(writer: DataWriter, timeout: float) -> bool:
    """Return whether anyone listens to `writer`, waiting for at most `timeout` [s]."""
    deadline = time.monotonic() + timeout
    while not writer.get_matched_subscriptions():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
