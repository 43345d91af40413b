package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Words makes prompts of random common words. It is a [Prompter]. Prompts of
// different seeds share no beginning, so that a prefix cache finds nothing.
type Words struct {
	Model      string
	Chat       bool           // the chat protocol, else completions
	Continuous bool           // ask for token counts in every chunk (vLLM)
	Extra      map[string]any // more fields of the request, such as temperature
	EOS        bool           // let the model stop by itself; else ignore_eos and min_tokens are sent
	PerWord    float64        // tokens of a word, 0 for 1
	Overhead   float64        // tokens of the template around the prompt
	// Without are fields that are left out because the server refuses requests
	// that have them; Calibrate finds them.
	Without []string
}

// optional are the fields of a request that a server may refuse. Without the
// first two a model ends its output where it likes.
var optional = []string{"ignore_eos", "min_tokens", "stream_options", "continuous_usage_stats"}

func (w Words) sends(field string) bool { return !slices.Contains(w.Without, field) }

// Body implements [Prompter].
func (w Words) Body(r Request) ([]byte, string, error) {
	per := w.PerWord
	if per == 0 {
		per = 1
	}
	n := max(1, int((float64(r.ISL)-w.Overhead)/per+0.5))
	rnd := rand.New(rand.NewPCG(r.Seed, 3))
	text := make([]byte, 0, 6*n)
	for i := range n {
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, common[rnd.IntN(len(common))]...)
	}
	var b bytes.Buffer
	b.WriteString(`{"model":`)
	b.WriteString(strconv.QuoteToASCII(w.Model))
	if w.Chat {
		fmt.Fprintf(&b, `,"messages":[{"role":"user","content":"%s"}]`, text)
	} else {
		fmt.Fprintf(&b, `,"prompt":"%s"`, text)
	}
	fmt.Fprintf(&b, `,"max_tokens":%d,"stream":true`, r.OSL)
	if w.sends("stream_options") {
		b.WriteString(`,"stream_options":{"include_usage":true`)
		if w.Continuous && w.sends("continuous_usage_stats") {
			b.WriteString(`,"continuous_usage_stats":true`)
		}
		b.WriteByte('}')
	}
	if !w.EOS && w.sends("ignore_eos") {
		b.WriteString(`,"ignore_eos":true`)
	}
	if !w.EOS && w.sends("min_tokens") {
		fmt.Fprintf(&b, `,"min_tokens":%d`, r.OSL)
	}
	for k, v := range w.Extra {
		enc, err := json.Marshal(v)
		if err != nil {
			return nil, "", fmt.Errorf("encode %s: %w", k, err)
		}
		fmt.Fprintf(&b, ",%s:%s", strconv.QuoteToASCII(k), enc)
	}
	b.WriteByte('}')
	sum := sha256.Sum256(text)
	return b.Bytes(), hex.EncodeToString(sum[:]), nil
}

// common are words that most tokenizers hold as one token each.
var common = bytes.Fields([]byte(`time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city community name president team minute idea kid body information back parent face others level office door health person art war history party result change morning reason research girl guy moment air teacher force education foot boy age policy process music market sense nation plan college interest death experience effect use class control care field development role effort rate heart drug show leader light voice wife police mind price report decision son view relationship town road arm difference value building action season society tax director position player record paper space ground form event matter center site project activity table court oil situation cost industry figure street image phone data picture practice piece land product doctor wall patient worker news test movie north love support technology step baby computer type attention film tree source hair window culture chance brother energy period course summer plant opportunity term letter condition choice rule daughter south husband floor campaign material population call economy hospital church risk fire future bank west sport board subject officer rest deal`))

// Calibrate learns from an endpoint how many tokens a word takes and how many
// the template adds: it sends two prompts and reads usage. Fields that the server
// refuses by name are left out from there on. Servers without usage leave the
// lengths as they were, with an error that says so.
func (w Words) Calibrate(ctx context.Context, to Sender, seed uint64) (Words, error) {
	w.PerWord, w.Overhead = 1, 0
	ask := func(words int, seed uint64) (float64, error) {
		body, _, err := w.Body(Request{ISL: words, OSL: 1, Seed: seed})
		if err != nil {
			return 0, err
		}
		a := answer{rec: newRecord(0, Request{})}
		got, err := to.Do(ctx, body, a.event)
		for err == nil && (got.Status == 400 || got.Status == 422) && w.refuse(string(got.Body)) {
			if body, _, err = w.Body(Request{ISL: words, OSL: 1, Seed: seed}); err != nil {
				return 0, err
			}
			a = answer{rec: newRecord(0, Request{})}
			got, err = to.Do(ctx, body, a.event)
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("send prompt: %w", err)
		case got.Status != 200:
			return 0, fmt.Errorf("send prompt: HTTP %d: %s", got.Status, clip(got.Body))
		case a.rec.ISL < 0:
			return 0, errNoUsage
		}
		return float64(a.rec.ISL), nil
	}
	const short, long = 50, 350
	s, err := ask(short, seed)
	if err != nil {
		return w, err
	}
	l, err := ask(long, seed+1)
	if err != nil {
		return w, err
	}
	if per := (l - s) / (long - short); per > 0.2 && per < 20 {
		w.PerWord, w.Overhead = per, s-per*short
	}
	return w, nil
}

// refuse leaves out the optional fields that a server's complaint names, and
// reports whether there was one that had been sent.
func (w *Words) refuse(complaint string) (found bool) {
	for _, f := range optional {
		if w.sends(f) && strings.Contains(complaint, f) {
			w.Without = append(w.Without, f)
			found = true
		}
	}
	return found
}

var errNoUsage = errors.New("the server sends no usage, so input lengths cannot be set exactly")
