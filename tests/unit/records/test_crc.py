"""The checksum is that of RFC 3720, wherever the function comes from."""

import importlib
import subprocess
import sys

import crc32c

from ottla.records import crc


def test_the_checksum_of_the_digits_is_the_known_one():
    assert crc.crc32c(b"123456789") == 0xE3069283


def test_a_checksum_goes_on_from_another():
    assert crc.crc32c(b"6789", crc.crc32c(b"12345")) == crc.crc32c(memoryview(b"123456789"))


def test_it_is_the_function_of_the_package():
    data = bytes(range(256)) * 5
    assert crc.crc32c(data) == crc32c.crc32c(data)


def test_where_the_extension_cannot_be_found_the_package_is_used():
    assert "crc32c" in sys.modules
    assert importlib.reload(crc).crc32c is crc32c.crc32c


def test_the_package_is_not_imported_where_its_extension_suffices():
    code = "import sys, ottla.records.crc; print('crc32c' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_both_ways_live_in_one_process():
    code = (
        "import ottla.records.crc as ours, crc32c; print(ours.crc32c(b'a') == crc32c.crc32c(b'a'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "True\n"
