package model

import (
	"fmt"
	"math"
	"strings"
)

// Check is a claim with what the files say.
type Check struct {
	Claim
	Reported string `json:"reported"`
	Measured string `json:"measured,omitempty"`
	// Tolerance is relative to the reported value, and ToleranceSource says
	// where it comes from.
	Tolerance       float64 `json:"tolerance,omitempty"`
	ToleranceSource string  `json:"tolerance_source,omitempty"`
	// Verdict is aligned, partially_aligned, inconclusive, not_attempted or
	// not_checkable. A number outside of its tolerance is inconclusive, with both
	// values: whoever stated it may have counted something else.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
}

// Known is what the files of a model say, to check claims with.
type Known struct {
	Model *Model
	// Census is that of the headers; nil where only the configuration was read.
	Census *Census
	// Licence is the licence whose text lies beside the weights, empty where
	// there is none that is recognised.
	Licence string
	// BaseSize is the measured size of the base in bytes; 0 takes 16 bits for
	// each parameter. Base is the model that the weights were compared with.
	BaseSize int64
	Base     string
	BaseFits bool // all compared weights were near those of Base
}

// Params are total and active parameters, the total from the headers where they
// were read, and where it comes from.
func (k *Known) Params() (total int64, source string) {
	if k.Census != nil {
		return k.Census.Params, "measured: safetensors headers"
	}
	return k.Model.Params.Total + k.Model.Params.MTP, "derived: config.json"
}

// size is the size of the weights in bytes, 0 where it is not known.
func (k *Known) size() int64 {
	if k.Census != nil {
		return k.Census.Bytes
	}
	return k.Model.Bytes
}

// CheckClaims compares claims with what is known.
func CheckClaims(claims []Claim, k *Known) []Check {
	out := make([]Check, 0, len(claims))
	for _, c := range claims {
		out = append(out, k.check(c))
	}
	return out
}

func (k *Known) check(c Claim) Check {
	r := Check{Claim: c, Reported: c.Word}
	switch c.Kind {
	case "parameters":
		k.parameters(&r)
	case "active_parameters":
		k.active(&r)
	case "memory_reduction", "size_share":
		k.reduction(&r)
	case "bits_per_parameter":
		k.bits(&r)
	case "context":
		r.Reported = fmt.Sprintf("%.0f tokens", c.Value)
		if k.Model.Context == 0 {
			r.Verdict, r.Reason = "not_checkable", "config.json states no max_position_embeddings"
			break
		}
		// 128K is 131072 as well as 128000.
		r.near(float64(k.Model.Context), fmt.Sprintf("%d tokens (config.json)", k.Model.Context), 0.03)
		if r.Verdict == "inconclusive" && c.Value < float64(k.Model.Context) {
			r.Verdict, r.Reason = "partially_aligned", "the configuration allows more"
		}
	case "licence":
		k.licence(&r)
	case "base_model":
		k.base(&r)
	case "format":
		k.format(&r)
	case "quantised_layers":
		k.layers(&r)
	default:
		r.Verdict, r.Reason = "not_checkable", "nothing in the files speaks to it"
	}
	return r
}

// active tries both ways in which people count what a token uses: with the
// input embedding, which is a look-up, and without.
func (k *Known) active(r *Check) {
	p := k.Model.Params
	text := fmt.Sprintf("%s, %s without the input embedding (derived: config.json)", billions(p.Active), billions(p.Compute))
	r.Reported = billions(int64(r.Value))
	r.near(float64(p.Active), text, 0.05)
	if r.Verdict == "aligned" {
		return
	}
	if try := *r; k.Model.hasWarning("unknown_architecture") {
		r.Reason = "the architecture is not known, so what a token uses is a guess"
	} else if try.near(float64(p.Compute), text, 0.05); try.Verdict == "aligned" {
		r.Verdict, r.Reason = "aligned", "it leaves out the input embedding"
	}
}

func (m *Model) hasWarning(code string) bool {
	for _, w := range m.Warnings {
		if w.Code == code {
			return true
		}
	}
	return false
}

// near judges a number by its tolerance: half of the last digit that is stated,
// or what is usual for rounding, whichever is more.
func (r *Check) near(measured float64, text string, usual float64) {
	r.Measured = text
	r.Tolerance, r.ToleranceSource = usual, "usual rounding of such statements"
	if half := r.Step / 2 / r.Value; half > r.Tolerance {
		r.Tolerance, r.ToleranceSource = half, "half of the last digit stated"
	}
	r.Tolerance = math.Round(r.Tolerance*1e4) / 1e4
	if math.Abs(measured/r.Value-1) <= r.Tolerance {
		r.Verdict = "aligned"
		return
	}
	r.Verdict = "inconclusive"
	r.Reason = fmt.Sprintf("the files give %.2f times what is stated", measured/r.Value)
}

// parameters tries the ways in which people count: with and without vision and
// multi-token prediction, and without the embeddings.
func (k *Known) parameters(r *Check) {
	p := k.Model.Params
	total, source := k.Params()
	r.Reported = billions(int64(r.Value))
	text := fmt.Sprintf("%s (%s)", billions(total), source)
	r.near(float64(total), text, 0.03)
	if r.Verdict == "aligned" {
		return
	}
	for _, other := range []struct {
		n    int64
		what string
	}{{p.Text, "of the text model"}, {p.Total, "without multi-token prediction"}, {p.Text - p.Input, "of the text model without its input embedding"}} {
		try := *r
		if try.near(float64(other.n), text, 0.03); try.Verdict == "aligned" && other.n > 0 {
			r.Verdict, r.Reason = "aligned", fmt.Sprintf("it counts the %s %s (derived: config.json)", billions(other.n), other.what)
			return
		}
	}
	if k.packed() && r.Value < float64(total) && strings.HasPrefix(r.Source, "hub") {
		r.Reason += "; the hub counts stored elements, and a packed byte holds two parameters"
	}
}

// packed tells whether weights lie two to a byte.
func (k *Known) packed() bool {
	shares := k.Model.Formats
	if k.Census != nil {
		shares = k.Census.Formats
	}
	for _, f := range shares {
		if formatBits(f.Weights) == 4 {
			return true
		}
	}
	return false
}

func (k *Known) reduction(r *Check) {
	size := k.size()
	total, _ := k.Params()
	base, what := 2*total, "against 16 bits for each parameter"
	if k.BaseSize > 0 {
		base, what = k.BaseSize, "against the files of the base"
	}
	r.Reported = fmt.Sprintf("%gx", r.Value)
	if r.Kind == "size_share" {
		r.Reported = fmt.Sprintf("%g %%", 100*r.Value)
	}
	if size == 0 {
		r.Verdict, r.Reason = "not_checkable", "the size is not known from the configuration alone"
		return
	}
	times := float64(base) / float64(size)
	text := fmt.Sprintf("%.2fx (%s of %s, %s)", times, gib(size), gib(base), what)
	if r.Kind == "memory_reduction" {
		r.near(times, text, 0.1)
		if r.Verdict == "inconclusive" && times > 1.05 {
			r.Verdict, r.Reason = "partially_aligned", "it is smaller, by another factor: "+k.notPacked()
		}
		return
	}
	// "reducing … by approximately 25 %" is written for a quarter that is left as
	// well as for a quarter that is saved.
	saved := 1 - 1/times
	r.near(saved, fmt.Sprintf("%.0f %% saved, %s", 100*saved, text), 0.1)
	if r.Verdict == "inconclusive" {
		left := *r
		if left.near(1/times, left.Measured, 0.1); left.Verdict == "aligned" {
			r.Verdict, r.Reason = "partially_aligned", "it is the share that is left, not the share that is saved"
		} else if times > 1.05 {
			r.Verdict, r.Reason = "partially_aligned", "it is smaller, by another share: "+k.notPacked()
		}
	}
}

// notPacked says how much of a model stayed as it was.
func (k *Known) notPacked() string {
	var plain, all int64
	shares := k.Model.Formats
	if k.Census != nil {
		shares = k.Census.Formats
	}
	for _, f := range shares {
		all += f.Params
		if formatBits(f.Weights) >= 16 {
			plain += f.Params
		}
	}
	return fmt.Sprintf("%.0f %% of the parameters stay at 16 bits or more", 100*float64(plain)/float64(max(all, 1)))
}

func (k *Known) bits(r *Check) {
	size := k.size()
	total, source := k.Params()
	r.Reported = fmt.Sprintf("%g bits", r.Value)
	if size == 0 || total == 0 {
		r.Verdict, r.Reason = "not_checkable", "the size is not known from the configuration alone"
		return
	}
	bits := 8 * float64(size) / float64(total)
	// A scale in eight bits for every 16 values is half a bit.
	r.near(bits, fmt.Sprintf("%.2f bits per parameter over all (%s)", bits, source), 0.15)
	if r.Verdict == "inconclusive" && bits < 15 {
		r.Verdict, r.Reason = "partially_aligned", "true of the quantised modules only: "+k.notPacked()
	}
}

func (k *Known) licence(r *Check) {
	switch {
	case k.Licence == "":
		r.Verdict, r.Reason = "not_checkable", "no file beside the weights holds the text of a known licence"
	case strings.EqualFold(k.Licence, r.Word):
		r.Verdict, r.Measured = "aligned", k.Licence+" (LICENSE)"
	default:
		r.Verdict, r.Measured, r.Reason = "inconclusive", k.Licence+" (LICENSE)", "card and licence text differ"
	}
}

func (k *Known) base(r *Check) {
	switch {
	case k.Base == "":
		r.Verdict, r.Reason = "not_attempted", "--against "+r.Word+" compares the weights"
	case k.Base != r.Word:
		r.Verdict, r.Reason = "not_attempted", "the weights were compared with "+k.Base
	case k.BaseFits:
		r.Verdict, r.Measured = "aligned", "all weights compared are near those of "+k.Base
	default:
		r.Verdict, r.Measured = "inconclusive", "some weights are far from those of "+k.Base
	}
}
