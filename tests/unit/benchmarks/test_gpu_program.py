"""Counting the kernels, bytes and FLOP of a compiled program's text."""

from benchmarks import gpu_program

_TEXT = """HloModule jit_step

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %neg = f32[4]{0} negate(%p)
}

ENTRY %main (x: bf16[2,6,6,3], k: bf16[8,3,3,3]) -> f32[8] {
  %x = bf16[2,6,6,3]{3,2,1,0} parameter(0)
  %k = bf16[8,3,3,3]{3,2,1,0} parameter(1)
  %conv = (bf16[2,4,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/conv"}
  %y = bf16[2,4,4,8]{3,2,1,0} get-tuple-element(%conv), index=0
  %grad = (bf16[8,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter", metadata={op_name="jit(step)/grad"}
  %back = (bf16[2,6,6,3]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), window={size=3x3}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  ROOT %sum = f32[8]{0} fusion(%y), kind=kInput, calls=%fused, metadata={op_name="jit(step)/sum"}
}
"""


def test_kernels():
  found = {k.name: k for k in gpu_program.kernels(_TEXT)}
  assert list(found) == ["conv", "grad", "back", "sum"]  # neither parameters nor tuples
  x, k, y = 2 * 2 * 6 * 6 * 3, 2 * 8 * 3 * 3 * 3, 2 * 2 * 4 * 4 * 8
  assert [f.bytes for f in found.values()] == [x + k + y, x + k + y, x + k + y, y + 4 * 8]
  product = 2 * (2 * 4 * 4) * 8 * (3 * 3 * 3)  # pixels of the result, outputs, terms
  assert [f.flops for f in found.values()] == [product, product, product, 0]
  assert found["sum"].source == "jit(step)/sum"


def test_kernels_of_command_buffers_count():
  """XLA moves what one graph launches into a computation of its own, which the entry calls."""
  entry = _TEXT.index("ENTRY")
  text = _TEXT[:entry] + """%command_buffer (q: f32[4]) -> f32[4] {
  %q = f32[4]{0} parameter(0)
  %one = f32[4]{0} fusion(%q), kind=kLoop, calls=%fused
  ROOT %two = f32[4]{0} fusion(%one), kind=kLoop, calls=%fused
}

""" + _TEXT[entry:].replace("  ROOT %sum", "  %call = f32[4]{0} call(%y), to_apply=%command_buffer\n  ROOT %sum")
  assert [k.name for k in gpu_program.kernels(text)] == ["conv", "grad", "back", "one", "two", "sum"]


def test_kernels_of_a_loop_count_as_often_as_it_runs():
  entry = _TEXT.index("ENTRY")
  loop = """%body (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]{0}) parameter(0)
  %u = f32[4]{0} get-tuple-element(%q), index=1
  %i = s32[] get-tuple-element(%q), index=0
  %warp = f32[4]{0} fusion(%u), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[4]{0}) tuple(%i, %warp)
}

"""
  line = "  %run = (s32[], f32[4]{0}) while(%x), condition=%cond, body=%body"
  for config, times in ((', backend_config={"known_trip_count":{"n":"7"}}', 7), ("", 1)):
    text = _TEXT[:entry] + loop + _TEXT[entry:].replace("  ROOT %sum", f"{line}{config}\n  ROOT %sum")
    found = gpu_program.kernels(text)
    assert [k.name for k in found].count("warp") == times and "run" not in [k.name for k in found]
    assert next(k for k in found if k.name == "warp").bytes == 2 * 16


def test_of_a_sliced_operand_the_slice_counts():
  text = """HloModule m

%fused (p: f32[100], q: f32[100], r: f32[10]) -> f32[10] {
  %p = f32[100]{0} parameter(0)
  %q = f32[100]{0} parameter(1)
  %r = f32[10]{0} parameter(2)
  %neg = f32[100]{0} negate(%p)
  %a = f32[10]{0} slice(%neg), slice={[0:10]}
  %both = f32[200]{0} concatenate(%q, %p), dimensions={0}
  %b = f32[10]{0} slice(%both), slice={[0:10]}
  %c = f32[10]{0} add(%a, %b)
  ROOT %d = f32[10]{0} add(%c, %r)
}

ENTRY %main (x: f32[100], y: f32[100], z: f32[10]) -> f32[10] {
  %x = f32[100]{0} parameter(0)
  %y = f32[100]{0} parameter(1)
  %z = f32[10]{0} parameter(2)
  ROOT %run = f32[10]{0} fusion(%x, %y, %z), kind=kLoop, calls=%fused
}
"""
  kernel, = gpu_program.kernels(text)
  assert kernel.bytes == 4 * (10 + 10 + 5 + 5 + 10)  # result, slice of x, shares of both, z
