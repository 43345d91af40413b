package api

import "github.com/repromill/repromill/runner/engine"

// tokenLogprob is a token with its probability in a chat.
type tokenLogprob struct {
	Token   string         `json:"token"`
	Logprob float64        `json:"logprob"`
	Bytes   []int          `json:"bytes"`
	Top     []tokenLogprob `json:"top_logprobs,omitempty"`
}

func (s *Server) describe(l engine.Logprob) tokenLogprob {
	out := tokenLogprob{Token: s.tok.Decode([]int32{l.ID}, false), Logprob: finite(l.Value), Bytes: []int{}}
	for _, b := range s.tok.Bytes(l.ID) {
		out.Bytes = append(out.Bytes, int(b))
	}
	return out
}

// chatLogprobs is nil where probabilities were not asked for.
func (s *Server) chatLogprobs(tokens []engine.Token) any {
	content := make([]tokenLogprob, 0, len(tokens))
	for _, t := range tokens {
		if t.Logprob == nil {
			return nil
		}
		d := s.describe(*t.Logprob)
		for _, l := range t.Top {
			d.Top = append(d.Top, s.describe(l))
		}
		content = append(content, d)
	}
	return map[string]any{"content": content}
}

// textLogprobs is the form of completions; offsets are in characters.
func (s *Server) textLogprobs(tokens []engine.Token, offset int) any {
	var out struct {
		Offsets  []int                `json:"text_offset"`
		Logprobs []*float64           `json:"token_logprobs"`
		Tokens   []string             `json:"tokens"`
		Top      []map[string]float64 `json:"top_logprobs"`
	}
	asked := false
	for _, t := range tokens {
		out.Offsets, out.Tokens = append(out.Offsets, offset), append(out.Tokens, t.Text)
		offset += len([]rune(t.Text))
		if t.Logprob == nil { // the first of a prompt
			out.Logprobs, out.Top = append(out.Logprobs, nil), append(out.Top, nil)
			continue
		}
		asked = true
		v := finite(t.Logprob.Value)
		top := map[string]float64{t.Text: v}
		for _, l := range t.Top {
			top[s.tok.Decode([]int32{l.ID}, false)] = finite(l.Value)
		}
		out.Logprobs, out.Top = append(out.Logprobs, &v), append(out.Top, top)
	}
	if !asked {
		return nil
	}
	return out
}
