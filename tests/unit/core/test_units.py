"""What the processor is said to multiply in hardware, from the text that Linux gives."""

import pathlib

import pytest

from medae_jax.core.device import units

_TEXT = ("processor\t: 0\nmodel name\t: flags: avx512_bf16\nflags\t\t: fpu sse2 {}\nbugs\t\t: amx_bf16\n\n"
         "processor\t: 1\n")


@pytest.mark.parametrize("flags, has", [("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True),
                                        ("avx512f avx512_bf16x", False), ("", False)])
def test_units_are_those_of_the_flags(monkeypatch, flags, has):
  monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: _TEXT.format(flags))
  assert units.multiply_bfloat16.__wrapped__() is has


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: bf16\n"])
def test_a_processor_that_names_no_flags_has_none(monkeypatch, text):
  monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: text)
  assert not units.multiply_bfloat16.__wrapped__()


def test_other_systems_have_no_such_file(monkeypatch):
  def absent(self, **_):
    raise FileNotFoundError(self)
  monkeypatch.setattr(pathlib.Path, "read_text", absent)
  assert not units.multiply_bfloat16.__wrapped__()
