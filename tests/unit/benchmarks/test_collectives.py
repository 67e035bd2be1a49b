"""Counting what devices say to each other in a compiled program's text."""

import importlib.util
import sys

import pytest

from benchmarks.devices import collectives, tpu

_TEXT = """HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %early = (f32[4]{0}, f32[4]{0}) all-reduce-start(%x), replica_groups=[1,8]<=[8]
  %conv = (f32[4]{0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  %done = f32[4]{0} all-reduce-done(%early)
  %late = (f32[4]{0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  ROOT %all-reduce.1 = (bf16[10]{0:T(1024)}, f32[]{:T(128)}) all-reduce(%done, %x), replica_groups=[1,8]<=[8]
}
"""


def test_collectives_of_a_program():
  begun, whole = collectives.found(_TEXT)
  assert (begun.kind, begun.bytes, begun.types, begun.beside) == ("all-reduce-start", 16, ("f32",), 1)
  assert (whole.kind, whole.bytes, whole.types, whole.beside) == ("all-reduce", 24, ("bf16", "f32"), 0)


@pytest.mark.parametrize("arguments, words", [
    (["--tasks=unknown"], "'unknown' is none of dae"), (["--batch=-1"], "must not be negative"),
    ([], 'pip install "jax[tpu]"')])
def test_tpu_says_what_is_wrong(monkeypatch, capsys, arguments, words):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  monkeypatch.setattr(sys, "argv", ["tpu", *arguments])
  with pytest.raises(SystemExit):
    tpu.main()
  assert words in capsys.readouterr().err
