package kernel

import (
	"math"

	"github.com/repromill/repromill/planner/model"
)

// RoundBF16 rounds values to BF16, ties to even, in place.
func RoundBF16(x []float32) {
	done := 0
	if accelerated && len(x) >= 8 {
		done = len(x) &^ 7
		roundBF16(&x[0], done)
	}
	for i := done; i < len(x); i++ {
		x[i] = model.DecodeBF16(model.EncodeBF16(x[i]))
	}
}

// AMax is the largest magnitude of values.
func AMax(x []float32) float32 {
	var m uint32 // magnitudes have the order of their bits
	for _, v := range x {
		m = max(m, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(m)
}

// roundFP8 replaces inputs by the values of the E4M3 codes that they round to,
// and returns what these have to be multiplied with. The arithmetic is that of
// vLLM's kernels: a multiplication with the inverse of the scale, then rounding
// with saturation (vllm-project/vllm csrc/quantization/w8a8/fp8/common.cu). With
// static 0 the scale is amax/448 of this row: dynamic, per token.
func roundFP8(x []float32, static float32) float32 {
	scale := static
	if scale == 0 {
		if scale = AMax(x) / model.MaxE4M3; scale == 0 {
			scale = 1
		}
	}
	inv := 1 / scale
	for i, v := range x {
		x[i] = tableE4M3[model.EncodeE4M3(v*inv)]
	}
	return scale
}

// roundNVFP4 replaces inputs by the values of their E2M1 codes times those of
// their blocks' E4M3 scales, and returns the global scale that these have to be
// multiplied with. The arithmetic is that of vLLM's and TensorRT-LLM's kernel:
// the scale of a block is amax/6 over the global scale, rounded to E4M3, and the
// values are divided by what that decodes to (vllm-project/vllm
// csrc/quantization/fp4/nvfp4_utils.cuh). With static 0 the global scale is
// amax/2688 of this row.
func roundNVFP4(x []float32, static float32) float32 {
	global := static
	if global == 0 {
		if global = AMax(x) / (model.MaxE2M1 * model.MaxE4M3); global == 0 {
			global = 1
		}
	}
	up := 1 / global
	for ; len(x) >= model.BlockNVFP4; x = x[model.BlockNVFP4:] {
		block := x[:model.BlockNVFP4]
		scale := tableE4M3[model.EncodeE4M3(up*(AMax(block)*(1/float32(model.MaxE2M1))))]
		var inv float32
		if scale != 0 {
			inv = 1 / (scale * (1 / up))
		}
		for i, v := range block {
			block[i] = model.DecodeE2M1(model.EncodeE2M1(v*inv)) * scale
		}
	}
	return global
}
