"""The network interface that gloo is told to use."""

import os
import socket

import pytest

from trainables.process_group import find_interface, use_interface_of


def test_the_interface_is_found_by_its_address_or_its_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Address:
        family = socket.AF_INET

        def __init__(self, address: str, netmask: str | None) -> None:
            self.address, self.netmask = address, netmask

    found = {
        "lo": [Address("127.0.0.1", "255.0.0.0")],
        "wide": [Address("10.0.0.9", "255.0.0.0")],
        "eth0": [Address("10.1.0.2", "255.255.0.0")],
        "tun0": [Address("192.168.0.2", None)],
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    assert find_interface("10.1.0.2") == "eth0"
    assert find_interface("127.0.0.2") == "lo"
    assert find_interface("172.16.0.1") is None


def test_what_the_user_has_set_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    use_interface_of("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    use_interface_of("127.0.0.1")
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == "lo"
