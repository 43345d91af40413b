package load

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Share is one kind of requests in a mix.
type Share struct {
	Share    float64 // of the requests; shares are relative to their sum
	ISL, OSL Length
	Class    string // of prompts, for routing by past lengths
}

// picker draws kinds of requests. Without a mix nothing is drawn.
func (s Spec) picker(r *rand.Rand) func() Share {
	if s.Mix == nil {
		return func() Share { return Share{ISL: s.ISL, OSL: s.OSL} }
	}
	total := 0.0
	for _, m := range s.Mix {
		total += m.Share
	}
	return func() Share {
		at := r.Float64() * total
		for _, m := range s.Mix[:len(s.Mix)-1] {
			if at -= m.Share; at < 0 {
				return m
			}
		}
		return s.Mix[len(s.Mix)-1]
	}
}

func (s Spec) checkMix() string {
	if len(s.Mix) == 0 {
		return "it is empty"
	}
	for i, m := range s.Mix {
		switch {
		case !(m.Share > 0 && m.Share <= 1e6):
			return fmt.Sprintf("share %d is %g", i+1, m.Share)
		case m.ISL.Mean < 1 || m.OSL.Mean < 1 || m.ISL.Mean > 16<<20 || m.OSL.Mean > 16<<20:
			return fmt.Sprintf("share %d has ISL %d and OSL %d", i+1, m.ISL.Mean, m.OSL.Mean)
		case m.ISL.Spread < 0 || m.ISL.Spread >= 1 || m.OSL.Spread < 0 || m.OSL.Spread >= 1:
			return fmt.Sprintf("the spread of share %d is out of range", i+1)
		}
	}
	return ""
}

// Lengths names the lengths of a spec's requests.
func (s Spec) Lengths() string {
	if s.Mix == nil {
		return fmt.Sprintf("isl%d-osl%d", s.ISL.Mean, s.OSL.Mean)
	}
	out := make([]string, len(s.Mix))
	for i, m := range s.Mix {
		out[i] = fmt.Sprintf("%g:%dx%d", m.Share, m.ISL.Mean, m.OSL.Mean)
	}
	return "mix-" + strings.Join(out, ",")
}

// ParseMix reads shares with their input and output lengths, such as
// 0.8:256x64,0.2:4096x256. Each is a class of its own. Errors are
// [*BadSpecError].
func ParseMix(s string, spread float64) ([]Share, error) {
	const fix = "write --mix 0.8:256x64,0.2:4096x256: shares with input and output tokens"
	var out []Share
	for i, part := range strings.Split(s, ",") {
		var m Share
		var rest string
		n, err := fmt.Sscanf(strings.TrimSpace(part), "%g:%dx%d%s", &m.Share, &m.ISL.Mean, &m.OSL.Mean, &rest)
		if n != 3 {
			return nil, &BadSpecError{fmt.Sprintf("share %d of the mix, %q, cannot be read: %v", i+1, part, err), fix}
		}
		m.ISL.Spread, m.OSL.Spread, m.Class = spread, spread, fmt.Sprint(i)
		out = append(out, m)
	}
	if why := (Spec{Mix: out}).checkMix(); why != "" {
		return nil, &BadSpecError{"the mix is out of range: " + why, fix}
	}
	return out, nil
}
