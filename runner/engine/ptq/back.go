package ptq

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/model"
)

// packed are the formats whose values are read back.
var packed = []model.Format{model.FormatNVFP4, model.FormatFP8, model.FormatMXFP4, model.FormatMXFP8}

// openQuantised finds the weights of a quantised checkpoint.
func (j *job) openQuantised() error {
	if j.ck.Model.Quant == nil {
		return &Error{"the checkpoint is not quantised", "its values are as they are; quantise it to nvfp4, nvfp4-w4a4 or fp8"}
	}
	for i := range j.ck.Census.Stored {
		if s := &j.ck.Census.Stored[i]; slices.Contains(packed, s.Format) {
			j.linears = append(j.linears, s)
		}
	}
	if len(j.linears) == 0 {
		return &Error{fmt.Sprintf("no weight of the checkpoint is in a format that is read here (%s)", j.ck.Model.Quant.Method), "formats that are read are NVFP4, MXFP4, MXFP8 and FP8"}
	}
	j.result = Result{Out: j.cfg.Out, Format: j.cfg.Format, Quantised: len(j.linears), BytesIn: j.ck.Census.Bytes}
	return nil
}

// belongs reports whether a tensor is a scale or another attachment of a weight
// that is written without: whatever stands under the name of its module but the
// bias, and scales of the cache.
func (j *job) belongs(name string) bool {
	if strings.HasSuffix(name, ".k_scale") || strings.HasSuffix(name, ".v_scale") || strings.HasSuffix(name, ".output_scale") {
		return true
	}
	for _, s := range j.linears {
		if s.Scale != nil && name == s.Scale.Name || s.Global != nil && name == s.Global.Name {
			return true
		}
		if rest, ok := strings.CutPrefix(name, s.Name+"."); ok && name != s.Weight.Name && rest != "bias" {
			return true
		}
	}
	return false
}

// bf16 gives values as BF16 stores them, rounded to even.
func bf16(x []float32) []byte {
	out := make([]byte, 0, 2*len(x))
	for _, v := range x {
		out = binary.LittleEndian.AppendUint16(out, model.EncodeBF16(v))
	}
	return out
}
