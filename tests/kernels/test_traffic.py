"""Counting launches and bytes in optimized HLO."""

from __future__ import annotations

from kernels.verification import traffic

HLO = """
HloModule step

%fused_add (param_0: f32[8,4], param_1: f32[100,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %param_1 = f32[100,4]{1,0} parameter(1)
  %slice.1 = f32[8,4]{1,0} slice(%param_1), slice={[0:8], [0:4]}
  ROOT %add = f32[8,4]{1,0} add(%param_0, %slice.1)
}

%fused_update (param_0.1: f32[100,4], param_1.1: f32[8,4], param_2: s32[]) -> f32[100,4] {
  %param_0.1 = f32[100,4]{1,0} parameter(0)
  %param_1.1 = f32[8,4]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %negate = f32[8,4]{1,0} negate(%param_1.1)
  ROOT %update = f32[100,4]{1,0} dynamic-update-slice(%param_0.1, %negate, %param_2, %param_2)
}

%body (arg: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %arg = (s32[], f32[8,4]{1,0}) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%arg), index=1
  %i = s32[] get-tuple-element(%arg), index=0
  %copy.2 = f32[8,4]{1,0} copy(%x)
  ROOT %tuple = (s32[], f32[8,4]{1,0}) tuple(%i, %copy.2)
}

%condition (arg.1: (s32[], f32[8,4])) -> pred[] {
  %arg.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (a: f32[8,4], b: f32[100,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0), metadata={op_name="a"}
  %b = f32[100,4]{1,0} parameter(1)
  %fusion = f32[8,4]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused_add, metadata={op_name="jit(step)/add"}
  %call.1 = (bf16[8,4]{1,0}, u8[8,4]{1,0}) custom-call(%fusion), custom_call_target="triton_kernel_call", frontend_attributes={extra_bytes="1000"}, metadata={op_name="jit(step)/forward_kernel/triton_kernel_call"}
  %zero = s32[] constant(0)
  %fusion.1 = f32[100,4]{1,0} fusion(%b, %fusion, %zero), kind=kLoop, calls=%fused_update
  %tuple.1 = (s32[], f32[8,4]{1,0}) tuple(%a, %fusion)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%tuple.1), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  ROOT %result = f32[8,4]{1,0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_kernels_of_a_module():
    found = {k.instruction: k for k in traffic.kernels_of(HLO)}
    assert set(found) == {"fusion", "fusion.1", "call.1", "copy.2"}
    tile = 8 * 4 * 4
    assert found["fusion"].bytes == 3 * tile  # of the second operand it takes a slice
    assert found["fusion.1"].bytes == 2 * tile + 4  # the rest of its first operand stays as it is
    assert found["call.1"].kind == "custom-call:triton_kernel_call"
    assert found["call.1"].bytes == tile + 8 * 4 * 3 + 1000  # what the kernel says it reads again
    assert (found["copy.2"].bytes, found["copy.2"].times) == (2 * tile, 10)
    assert traffic.total(list(found.values())) == (13, 5 * tile + 4 + tile + 96 + 1000 + 20 * tile)
