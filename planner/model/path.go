package model

// Path is what a scheme runs as on a GPU under vLLM.
type Path struct {
	Math   string `json:"math"`   // w4a4, w4a16, w8a8, …; empty where it does not run
	Kernel string `json:"kernel"` // family of the kernel, as the engine's log names it
	// Sure is false where the engine's version or flags decide: then only its log
	// tells.
	Sure bool   `json:"sure"`
	Note string `json:"note,omitempty"`
}

// On is what the scheme runs as on GPUs of a compute capability, 90 for 9.0, in
// vLLM 0.13 to 0.15 (vllm/model_executor/layers/quantization/modelopt.py and
// layers/fused_moe/oracle/nvfp4.py; pull requests 38728, 49060, 53709 and 55170
// of vllm-project/vllm). The format that the metadata ask for is not what every
// GPU computes, and with the arithmetic the scores change.
func (s *Scheme) On(capability int) Path {
	blackwell := capability >= 100 && capability < 120
	switch {
	case s == nil:
		return Path{Math: "w16a16", Kernel: "gemm", Sure: true}
	case s.Weights == FormatNVFP4 && capability < 75, s.Weights == FormatINT4 && capability < 75:
		return Path{Sure: true, Note: "needs compute capability 7.5 or newer"}
	case s.Weights == FormatNVFP4 && s.Activations == "":
		return Path{Math: "w4a16", Kernel: "marlin", Sure: true, Note: "weights only: 4 bits save memory, not arithmetic"}
	case s.Weights == FormatNVFP4 && capability < 100:
		return Path{Math: "w4a16", Kernel: "marlin", Sure: true, Note: "no FP4 arithmetic on this GPU: activations stay 16-bit, so scores are not those of w4a4"}
	case s.Weights == FormatNVFP4 && s.Activations == FormatNVFP4 && blackwell:
		return Path{Math: "w4a4", Kernel: "flashinfer or cutlass", Sure: true}
	case s.Weights == FormatNVFP4:
		return Path{Math: s.Math(), Kernel: "cutlass or marlin", Note: "older versions choose a weight-only kernel here"}
	case s.Weights == FormatMXFP4 && s.Activations == "":
		return Path{Math: "w4a16", Kernel: "marlin or triton", Sure: !blackwell, Note: note(blackwell, "flags choose 8-bit activations here")}
	case s.Weights == FormatMXFP4, s.Weights == FormatMXFP8:
		return Path{Math: s.Math(), Kernel: "flashinfer", Sure: blackwell, Note: note(!blackwell, "needs Blackwell for its own arithmetic")}
	case s.Weights == FormatFP8 && s.Activations == "":
		return Path{Math: "w8a16", Kernel: "marlin", Sure: true}
	case s.Weights == FormatFP8 && capability >= 89:
		return Path{Math: "w8a8", Kernel: "cutlass or deepgemm", Sure: true}
	case s.Weights == FormatFP8 && s.Algo == "fp8" && capability >= 80:
		return Path{Math: "w8a16", Kernel: "marlin", Note: "no FP8 arithmetic on this GPU: activations stay 16-bit"}
	case s.Weights == FormatFP8:
		return Path{Sure: true, Note: "needs compute capability 8.9 or newer"}
	case s.Weights == FormatINT4:
		return Path{Math: "w4a16", Kernel: "marlin", Sure: s.Activations == ""}
	}
	return Path{Math: s.Math(), Kernel: "unknown"}
}

func note(when bool, text string) string {
	if when {
		return text
	}
	return ""
}
