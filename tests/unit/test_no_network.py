import socket

import pytest
from pytest_socket import SocketBlockedError


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_test_that_opens_a_socket_fails(family):
    with pytest.raises(SocketBlockedError):
        socket.socket(family, socket.SOCK_STREAM)
